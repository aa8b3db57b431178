/** Waits until a revocation has taken effect at every gateway. */
export interface Revocations {
  /**
   * Resolves when each gateway that held a lease has acknowledged all of these bindings, or its lease has
   * ended: from then on no connection of theirs is open or accepted anywhere (design: promise 3).
   */
  settled(bindingIds: readonly string[]): Promise<void>;
}
