/** A part of Berth that runs until it is stopped. */
export interface RunningProcess {
  /** Where it listens and what it does, in words for operators. */
  readonly announcement: string;
  stop(): Promise<void>;
}
