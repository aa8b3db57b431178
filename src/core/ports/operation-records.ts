import type { Instance, InstanceState } from '../model/instance.ts';
import type { LeasedOperation, Operation, OperationKind, ReportedOperation } from '../model/operation.ts';

/** The state of an operation between two steps. */
export interface Progress {
  readonly step: string;
  readonly description: string;
  readonly failure: string | undefined;
  readonly attempts: number;
}

/** The state with which an operation is released, and when to continue. */
export interface Reschedule extends Progress {
  /** Milliseconds until the operation may be leased again. */
  readonly afterMs: number;
}

/** Operations, their leases and their progress. */
export interface OperationRecords {
  /** @throws RefusedError (ConcurrencyError) if another is in progress on the instance. */
  insertOperation(
    operation: Pick<Operation, 'id' | 'kind' | 'instanceId' | 'step' | 'description' | 'deadline' | 'target'>,
  ): Promise<void>;
  operation(id: string): Promise<Operation | undefined>;
  /** The operation that is in progress on an instance; there is at most one. */
  unfinishedOperation(instanceId: string): Promise<Operation | undefined>;
  /**
   * An instance and the operation to report for it: the named one if it belongs to the instance and is of these kinds,
   * otherwise the newest of these kinds. One query, because platforms ask for this more often than for anything else.
   */
  reportedOperation(
    reference: { platformId: string; osbId: string; operationId: string | undefined },
    kinds: readonly OperationKind[],
  ): Promise<{ instance: Instance; operation: ReportedOperation | undefined } | undefined>;
  /** Fails an operation in favour of another. Writes of its lease holder are refused from then on. */
  cancelOperation(id: string, description: string): Promise<void>;
  /**
   * Deletes at most `limit` operations of instances that were deleted more than `olderThanMs` milliseconds ago.
   * @returns the number of deleted operations.
   */
  deleteOldOperations(olderThanMs: number, limit: number): Promise<number>;
  /** Deletes at most `limit` restarts that ended more than a day ago, except each instance's newest; returns the number. */
  deleteOldRestarts(limit: number): Promise<number>;
  /** Leases the oldest operation that is due and has no valid lease. */
  leaseOperation(worker: string, leaseMs: number): Promise<LeasedOperation | undefined>;
  /** This method and the next three return false, and write nothing, if another worker has leased the operation. */
  renewLease(operation: LeasedOperation, leaseMs: number): Promise<boolean>;
  recordProgress(operation: LeasedOperation, progress: Progress): Promise<boolean>;
  rescheduleOperation(operation: LeasedOperation, pause: Reschedule): Promise<boolean>;
  /**
   * Ends the operation and sets the state of its instance, unless undefined. The target of a successful update is
   * recorded in instance and host with it.
   */
  finishOperation(
    operation: LeasedOperation,
    outcome: { state: 'succeeded' | 'failed'; description: string; instance: InstanceState | undefined },
  ): Promise<boolean>;
  /** Milliseconds until the next operation is due; undefined if none is waiting. */
  nextDueMs(): Promise<number | undefined>;
}
