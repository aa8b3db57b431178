import type { OperationWaiter } from '../core/ports/operation-waiter.ts';
import type { Records } from '../core/ports/store.ts';
import { channels } from './channels.ts';
import type { Listener } from './listener.ts';
import { waitForNotification } from './wait.ts';

/** Waits for the notification of the worker that runs the operation. */
export function createOperationWaiter(listener: Listener, records: Records): OperationWaiter {
  return {
    async finished(operationId, forMs) {
      const finished = await waitForNotification(
        listener,
        channels.finished,
        (id) => id === operationId,
        async () => {
          const operation = await records.operation(operationId);
          return operation?.state === 'in progress' ? undefined : operation;
        },
        forMs,
      );
      return finished ?? records.operation(operationId);
    },
  };
}
