/** A process of Berth that has started. */
export interface RunningProcess {
  /** What it does and on which ports, for operators. */
  readonly announcement: string;
  stop(): Promise<void>;
}
