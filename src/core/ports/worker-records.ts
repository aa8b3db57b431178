/** What a worker reports every few seconds. */
export interface WorkerReport {
  readonly name: string;
  readonly hypervisor: string;
  /** Names of the plans whose hosts are restored from a template; all others boot. */
  readonly templates: readonly string[];
  /** Memory that the node can still give, as its kernel estimates it (`MemAvailable`). */
  readonly memoryAvailableMib: number;
  /** Undefined if its hosts take no memory of the node. */
  readonly memoryTotalMib: number | undefined;
}

/** The workers and their last reports. */
export interface WorkerRecords {
  report(worker: WorkerReport): Promise<void>;
  /** Deletes the worker's row on an orderly stop. */
  remove(name: string): Promise<void>;
}
