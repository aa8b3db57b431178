/** A process of Berth that has started. */
export interface RunningProcess {
  /** What it does and on which ports, for operators. */
  readonly announcement: string;
  /** What it still does in the background; undefined: nothing. */
  readonly preparation?: {
    /** Resolves once hosts can be made. */
    readonly ready: Promise<void>;
    /** Sends the progress until then to `to`, in place of the log. */
    show(to: (progress: string) => void): void;
  };
  stop(): Promise<void>;
}
