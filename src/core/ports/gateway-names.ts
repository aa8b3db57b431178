/** The names and addresses in gateways' certificates, as every api signs and every gateway requests them. */
export interface GatewayNames {
  /** Replaces them; a change notifies the gateways, which then renew their certificates. */
  replace(names: readonly string[]): Promise<void>;
  /** In alphabetical order. */
  list(): Promise<readonly string[]>;
}
