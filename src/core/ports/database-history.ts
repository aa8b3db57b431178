/** What the database says about its own history: whether it may have lost transactions since it was last used. */
export interface HistoryRecords {
  /**
   * Advances the mark if the history is the confirmed one and the mark has not gone back.
   * @param seen the highest mark that the installation has seen.
   * @returns undefined otherwise: the database may have lost transactions, and {@link confirm} is due.
   */
  advance(seen: number): Promise<{ readonly mark: number; readonly serverStart: string } | undefined>;
  /**
   * Makes the present history the confirmed one, with a mark above `seen`.
   * @returns undefined if another worker has done so already.
   */
  confirm(seen: number): Promise<number | undefined>;
  /** When the server was started, as text; it changes with each restart. */
  serverStart(): Promise<string>;
  /**
   * Revokes those of these bindings that are live, each with a row in the audit trail; gateways are notified.
   * @returns their ids.
   */
  revokeAgain(bindingIds: readonly string[]): Promise<readonly string[]>;
}

/** The highest mark that the installation has seen, in its state directory. */
export interface HighestMark {
  /** 0 if none is on record. */
  read(): Promise<number>;
  write(mark: number): Promise<void>;
}

/** A binding that was revoked. */
export interface Revocation {
  /** UUID of its row. */
  readonly bindingId: string;
  /** After this moment its certificate is refused anyway. */
  readonly expiresAt: Date;
}

/** What the installation itself remembers of revocations, in case Postgres loses its last transactions. */
export interface RevocationJournal {
  /** Resolves once these are on the disk. @throws Error if they can't be written. */
  append(revocations: readonly Revocation[]): Promise<void>;
}
