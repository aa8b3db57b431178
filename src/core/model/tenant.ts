/** The owner of a host. */
export interface Tenant {
  readonly id: string;
  readonly platformId: string;
  /** Identifies the tenant within its platform: see `tenantKey`. */
  readonly key: string;
}
