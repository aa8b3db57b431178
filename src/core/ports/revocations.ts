/** Waits until a revocation has taken effect at every gateway. */
export interface Revocations {
  /**
   * Resolves when each gateway with a lease has acknowledged all of these bindings, or its lease has expired: from
   * then on no connection with their certificates is open or accepted anywhere.
   */
  settled(bindingIds: readonly string[]): Promise<void>;
}
