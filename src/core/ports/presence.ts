/** The processes that announce themselves. */
export type PresentProcess = 'api' | 'gateway';

/** Tells the other processes what this one has loaded, such as the ids of master keys or CAs. */
export interface Presence {
  /** To be repeated every few seconds, and whenever it changes. */
  announce(ids: readonly string[]): Promise<void>;
  /** Ends the announcement on an orderly stop. */
  leave(): Promise<void>;
}

/** What the other processes have announced. A process that has been silent for 15 s is taken for dead. */
export interface Presences {
  /** How many live processes have not announced this id. */
  countWithout(process: PresentProcess, id: string): Promise<number>;
  /**
   * Waits until every live process has announced this id.
   * @returns false after `timeoutMs` milliseconds.
   */
  waitForAll(process: PresentProcess, id: string, timeoutMs: number): Promise<boolean>;
  /** Deletes the announcements of processes that died more than 10 minutes ago. */
  deleteDead(): Promise<void>;
}
