import type { Instance, InstanceState } from '../model/instance.ts';
import type { LeasedOperation, Operation, OperationKind, ReportedOperation } from '../model/operation.ts';

/** How an operation stands after a step. */
export interface Progress {
  readonly step: string;
  readonly description: string;
  readonly failure: string | undefined;
  readonly attempts: number;
}

/** What a worker runs again, and when. */
export interface Reschedule extends Progress {
  /** Milliseconds until the operation may be leased again. */
  readonly afterMs: number;
}

/** Operations, their leases and their progress. */
export interface OperationRecords {
  /** @throws RefusedError (ConcurrencyError) where another is in progress on the instance. */
  insertOperation(
    operation: Pick<Operation, 'id' | 'kind' | 'instanceId' | 'step' | 'description' | 'deadline' | 'target'>,
  ): Promise<void>;
  operation(id: string): Promise<Operation | undefined>;
  /** The operation that is in progress on an instance; there is at most one. */
  unfinishedOperation(instanceId: string): Promise<Operation | undefined>;
  /**
   * An instance, and the operation on it that a platform is told of: the named one where it is of this instance and of
   * these kinds, else the newest of them. In one question, which platforms ask more often than any other.
   */
  reportedOperation(
    reference: { platformId: string; osbId: string; operationId: string | undefined },
    kinds: readonly OperationKind[],
  ): Promise<{ instance: Instance; operation: ReportedOperation | undefined } | undefined>;
  /** Ends an operation from outside, in favour of another; whoever holds it finds its fence passed. */
  cancelOperation(id: string, description: string): Promise<void>;
  /**
   * Forgets operations of instances that were deleted so long ago, at most `limit` of them.
   * @returns how many it were.
   */
  deleteOldOperations(olderThanMs: number, limit: number): Promise<number>;
  /** Takes the oldest operation that is due and that no live lease holds. */
  leaseOperation(worker: string, leaseMs: number): Promise<LeasedOperation | undefined>;
  /** Each of the next four is refused, with false, where another has taken the operation over. */
  renewLease(operation: LeasedOperation, leaseMs: number): Promise<boolean>;
  recordProgress(operation: LeasedOperation, progress: Progress): Promise<boolean>;
  rescheduleOperation(operation: LeasedOperation, pause: Reschedule): Promise<boolean>;
  /**
   * Ends the operation and puts its instance into this state, where one is named. What an update that has
   * succeeded was to make of instance and host is recorded with it.
   */
  finishOperation(
    operation: LeasedOperation,
    outcome: { state: 'succeeded' | 'failed'; description: string; instance: InstanceState | undefined },
  ): Promise<boolean>;
  /** Milliseconds until the next operation is due; undefined where none waits. */
  nextDueMs(): Promise<number | undefined>;
}
