/** Whom a host belongs to. */
export interface Tenant {
  readonly id: string;
  readonly platformId: string;
  /** What tells tenants of one platform apart, for example `org:6f0c…`. */
  readonly key: string;
}
