/** Cleans up after gateways. */
export interface GatewayRecords {
  /** Deletes gateways whose lease ended more than a minute ago: they have died, and their connections with them. */
  deleteDead(): Promise<void>;
  /** Deletes acknowledgements of revocations that nothing waits for any more. */
  deleteLateAcknowledgements(): Promise<void>;
}
