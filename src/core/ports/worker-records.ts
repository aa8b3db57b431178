/** How far a worker is with what hosts are made from. */
export interface PreparationState {
  /** The work in progress, as text for people; undefined if there is none. */
  readonly preparing: string | undefined;
  /** Why hosts can't be made, or only of a former image; undefined if neither is the case. */
  readonly problem: string | undefined;
}

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
  /** Undefined if everything is prepared. */
  readonly preparation?: PreparationState;
}

/** The workers and their last reports. */
export interface WorkerRecords {
  report(worker: WorkerReport): Promise<void>;
  /** Deletes the worker's row on an orderly stop. */
  remove(name: string): Promise<void>;
}
