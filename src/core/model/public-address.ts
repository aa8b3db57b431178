/** The public address of the gateway and the published ports. */
export interface PublicAddress {
  /** Host name or IP address. */
  readonly host: string;
  readonly gatewayPort: number;
}
