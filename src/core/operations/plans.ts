import type { OperationKind } from '../model.ts';
import { removeSteps, startSteps } from './host-steps.ts';
import type { OperationPlan } from './step.ts';

/** What each kind of operation does. */
export const operationPlans: Readonly<Record<OperationKind, OperationPlan>> = {
  provision: {
    kind: 'provision',
    steps: startSteps,
    undo: removeSteps,
    attempts: 3,
    instanceAfter: { succeeded: 'ready', failed: 'failed' },
  },
  deprovision: {
    kind: 'deprovision',
    steps: removeSteps,
    // Nothing can be un-deleted: a delete that could not end fails, and the platform asks for it again.
    undo: [],
    attempts: 20,
    instanceAfter: { succeeded: 'deleted', failed: 'failed' },
  },
  expire: {
    kind: 'expire',
    steps: removeSteps,
    // Like a delete: what has been destroyed can't be brought back. It is begun anew as long as the host stands.
    undo: [],
    attempts: 20,
    instanceAfter: { succeeded: 'expired', failed: undefined },
  },
  restart: {
    kind: 'restart',
    steps: startSteps,
    // The host is kept: it holds its tenant's data. The next reconciliation tries again.
    undo: [],
    attempts: 5,
    instanceAfter: { succeeded: undefined, failed: undefined },
  },
};
