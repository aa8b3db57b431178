import type { StartedFrom } from '../core/hypervisor/lifecycle.ts';
import { updateRollbackBudgetMs } from '../core/operation-deadline.ts';
import type { Step } from './step.ts';
import { connect } from './steps/connect.ts';
import { destroy } from './steps/destroy.ts';
import { mayBootIn } from './steps/host-update.ts';
import { identify } from './steps/identify.ts';
import { prepare, prepareAny } from './steps/prepare.ts';
import { restartContainers } from './steps/restart-containers.ts';
import { revokeBindings } from './steps/revoke-bindings.ts';
import { start } from './steps/start.ts';
import { updateRollback, updateSteps } from './steps/update.ts';
import type { Workflows } from './workflow.ts';

/** From a prepared host to an engine that answers. */
const bringUpHost: readonly Step[] = [start, identify, connect];

/** Reconciliation repeats a restart whose VM ends, after pauses that grow: one restart boots it once. */
const bringUpOnce: readonly Step[] = bringUpHost.map((step) => ({
  ...step,
  beforeRetry: () => Promise.resolve(),
}));

/** Leaves nothing of the instance; also rolls back a create. */
const removeHost: readonly Step[] = [revokeBindings, destroy];

/** Tells why a create was slower than usual. */
const startedFromText: Readonly<Record<StartedFrom, string>> = {
  pool: 'the host came out of the pool',
  template: 'the pool had no host ready, and it was restored from the template',
  boot: 'there is no template to restore it from, and the host was booted cold',
};

/** The VM starts from its own disk. */
const always = () => Promise.resolve(true);

/** What each kind of operation does. */
export const workflows: Workflows = {
  provision: {
    kind: 'provision',
    steps: [prepareAny, ...bringUpHost],
    rollback: removeHost,
    mayBoot: async (host, hypervisor) => !(await hypervisor.hasTemplate(host)),
    attempts: 3,
    summary: (host) =>
      host?.startedFrom === undefined ? 'Done' : `Done: ${startedFromText[host.startedFrom]}`,
    instanceAfter: { succeeded: 'ready', failed: 'failed' },
  },
  update: {
    kind: 'update',
    steps: updateSteps,
    rollback: updateRollback,
    mayBoot: (host, { capabilities }, { target }) => Promise.resolve(mayBootIn(host, target, capabilities)),
    attempts: 3,
    // If the rollback fails too, the next reconciliation restarts the host, as after a crash.
    rollbackAttempts: 5,
    rollbackBudgetMs: updateRollbackBudgetMs,
    instanceAfter: { succeeded: undefined, failed: undefined },
  },
  deprovision: {
    kind: 'deprovision',
    steps: removeHost,
    // A delete can't be undone. If it fails, the platform or controllers/failed-deletes.ts starts it again.
    rollback: [],
    attempts: 20,
    instanceAfter: { succeeded: 'deleted', failed: 'failed' },
  },
  expire: {
    kind: 'expire',
    steps: removeHost,
    // Can't be undone either. The expiry controller begins it again as long as the host exists.
    rollback: [],
    attempts: 20,
    instanceAfter: { succeeded: 'expired', failed: undefined },
  },
  restart: {
    kind: 'restart',
    steps: [prepare, ...bringUpOnce, restartContainers],
    // The host stays, because it has its tenant's data. The next reconciliation tries again.
    rollback: [],
    mayBoot: always,
    attempts: 5,
    instanceAfter: { succeeded: undefined, failed: undefined },
  },
};
