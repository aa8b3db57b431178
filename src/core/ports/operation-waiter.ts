import type { Operation } from '../model/operation.ts';

/** Waits for operations that other processes run. */
export interface OperationWaiter {
  /** The operation as soon as it has ended, or in its current state after `forMs` milliseconds. */
  finished(operationId: string, forMs: number): Promise<Operation | undefined>;
}
