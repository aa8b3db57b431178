/** Hosts whose own record on the node does not fit their row. */
export interface DisputedRecords {
  /**
   * Sets a host aside: it belongs to no instance and not to the pool, nobody claims it, and it keeps its slot.
   * @param host.instanceId the instance that it belongs to by its row; undefined for one of the pool.
   * @returns false if its row says something else by now; nothing was changed.
   */
  setHostAside(
    host: { readonly id: string; readonly instanceId?: string | undefined },
    problem: string,
  ): Promise<boolean>;
  /** The hosts that were set aside. */
  disputedHosts(): Promise<readonly { readonly id: string; readonly slot: number }[]>;
}
