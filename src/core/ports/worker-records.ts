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
  /** In MiB; undefined if its hosts take no disk space of the node. */
  readonly disk?:
    | {
        readonly availableMib: number;
        /** Available, or taken by hosts. */
        readonly capacityMib: number;
        readonly reserveMib: number;
      }
    | undefined;
}

/** The workers and their last reports. */
export interface WorkerRecords {
  report(worker: WorkerReport): Promise<void>;
  /** Deletes the worker's row on an orderly stop. */
  remove(name: string): Promise<void>;
}
