import type { StartedFrom } from '../core/hypervisor/lifecycle.ts';
import { updateRollbackBudgetMs } from '../core/operation-deadline.ts';
import type { OperationKind } from '../core/model/operation.ts';
import { removeSteps, restartContainers, startSteps } from './steps/host-steps.ts';
import type { Workflow } from './step.ts';
import { updateSteps, updateRollback } from './steps/update-steps.ts';

/** A create that was slower than usual says so to whoever asks. */
const cameFrom: Readonly<Record<StartedFrom, string>> = {
  pool: 'the host came out of the pool',
  template: 'the pool had no host ready, and it was restored from the template',
  boot: 'there is no template of the plan to restore from, and the host was booted cold',
};

/** From its own disk. */
const always = () => Promise.resolve(true);

export type Workflows = Readonly<Record<OperationKind, Workflow>>;

/** What each kind of operation does. */
export const workflows: Workflows = {
  provision: {
    kind: 'provision',
    steps: startSteps,
    rollback: removeSteps,
    mayBoot: async ({ planName }, hypervisor) => !(await hypervisor.hasTemplate(planName)),
    attempts: 3,
    summary: (host) => (host?.startedFrom === undefined ? 'Done' : `Done: ${cameFrom[host.startedFrom]}`),
    instanceAfter: { succeeded: 'ready', failed: 'failed' },
  },
  update: {
    kind: 'update',
    steps: updateSteps,
    rollback: updateRollback,
    mayBoot: always,
    attempts: 3,
    // A host that does not come back either way is left to the next reconciliation, as after a crash.
    rollbackAttempts: 5,
    rollbackBudgetMs: updateRollbackBudgetMs,
    instanceAfter: { succeeded: undefined, failed: undefined },
  },
  deprovision: {
    kind: 'deprovision',
    steps: removeSteps,
    // Nothing can be un-deleted: a delete that could not end fails, and the platform asks for it again.
    rollback: [],
    attempts: 20,
    instanceAfter: { succeeded: 'deleted', failed: 'failed' },
  },
  expire: {
    kind: 'expire',
    steps: removeSteps,
    // Like a delete: what has been destroyed can't be brought back. It is begun anew as long as the host stands.
    rollback: [],
    attempts: 20,
    instanceAfter: { succeeded: 'expired', failed: undefined },
  },
  restart: {
    kind: 'restart',
    steps: [...startSteps, restartContainers],
    // The host is kept: it holds its tenant's data. The next reconciliation tries again.
    rollback: [],
    mayBoot: always,
    attempts: 5,
    instanceAfter: { succeeded: undefined, failed: undefined },
  },
};
