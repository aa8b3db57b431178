/** Everything in the database that is sealed under a master key. */
export interface SealedData {
  /**
   * Goes once through everything that is sealed and stores what `rewrap` returns, in batches. A value that changes
   * during this is left as it is. Safe to run again after a crash.
   * @param rewrap returns undefined if the value may stay; if it throws, the value stays and its row is reported.
   * @returns the number of replaced values, and the rows of those that could not be opened.
   */
  rewrapAll(
    rewrap: (sealed: Buffer, row: string) => Buffer | undefined,
    isStopped: () => boolean,
  ): Promise<{ replaced: number; damaged: readonly string[] }>;
}
