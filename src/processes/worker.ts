import { hostname, totalmem } from 'node:os';
import { readCatalog } from '../config/read-catalog.ts';
import { siteId } from '../config/secrets.ts';
import type { Settings } from '../config/settings.ts';
import { allPlans } from '../core/catalog/lookup.ts';
import type { Catalog } from '../core/catalog/catalog.ts';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { Logger } from '../lib/logger.ts';
import { leaseMs } from '../core/lease.ts';
import { type Workflows, workflows } from '../operations/workflows.ts';
import { openHypervisor } from '../hypervisors/open.ts';
import { expireDue } from '../controllers/expiry.ts';
import { finishDeletes } from '../controllers/failed-deletes.ts';
import { forgetOldOperations } from '../controllers/retention.ts';
import { startChecks } from '../controllers/integrity.ts';
import { adopt, reconcile } from '../controllers/reconcile.ts';
import { createPoolController } from '../controllers/pool.ts';
import { startLeaseLoop as startOperations } from '../operations/lease-loop.ts';
import { availableMib } from '../controllers/node-memory.ts';
import { createIdleController } from '../controllers/idle.ts';
import { channels } from '../postgres/channels.ts';
import { openDatabase, roleBounds } from '../postgres/database.ts';
import { refuseOwner } from '../postgres/server/database-roles.ts';
import { startListener } from '../postgres/listener.ts';
import { createCheckRecords } from '../postgres/host-checks.ts';
import { createRevocations } from '../postgres/revocations.ts';
import { createStore } from '../postgres/store.ts';
import { createWorkerRecords } from '../postgres/workers.ts';
import { portBlocks, requireDatabaseUrl } from './database-url.ts';
import { repeat } from '../lib/repeat.ts';
import type { RunningProcess } from './running-process.ts';

const reconcileEveryMs = 5_000;
const reportEveryMs = 5_000;
const expireEveryMs = 5_000;
const finishDeletesEveryMs = 30_000;
const forgetEveryMs = 3600 * 1000;
const keepPoolEveryMs = 1_000;
const lookForIdleEveryMs = 5_000;

/**
 * The role that drives the hypervisor. It is privileged, and listens on nothing.
 * @param variation what another kind of worker does differently (tools/chaos): the steps of its operations, the
 *   length of its leases in milliseconds.
 */
export async function startWorker(
  settings: Settings,
  logger: Logger,
  variation: { plans?: Workflows; leaseMs?: number } = {},
): Promise<RunningProcess> {
  const catalog = await readCatalog(settings);
  const name = `${hostname()}/${await siteId(settings)}`;
  const connectionString = await requireDatabaseUrl(settings, 'worker');
  const database = openDatabase(connectionString, { bounds: roleBounds });
  await refuseOwner(database, 'worker');
  const hypervisor = await openHypervisor(settings, logger, { loadAhead: true });
  const listener = await startListener({
    connectionString,
    listenTo: [channels.operations, channels.acknowledgements, channels.checks, channels.power],
    onLost: (error) => {
      logger.warn({ err: error }, 'The connection to Postgres was lost; it is tried again');
    },
  });
  const store = createStore(database, portBlocks(settings, catalog));
  const parts = { store, hypervisor, logger };
  const admission = { reserveMib: settings.memoryReserveMib, overcommit: settings.memoryOvercommit };

  const adopted = await adopt(parts);
  const operations = startOperations({
    ...parts,
    workflows: variation.plans ?? workflows,
    revocations: createRevocations(database, listener),
    name,
    leaseMs: variation.leaseMs ?? leaseMs,
  });
  const wake = () => {
    operations.wake();
  };
  listener.on(channels.operations, wake);
  listener.onReconnected(wake);
  const warn = (what: string) => (error: unknown) => {
    logger.warn({ err: error }, what);
  };
  const sleep = createIdleController({
    ...parts,
    pauseAfterMs: settings.idleAfterSeconds * 1_000,
    suspendAfterMs: settings.suspendAfterSeconds * 1_000,
    admission,
  });
  const serveSleepers = () => {
    sleep.fulfilRequests().catch(warn('Requests to wake hosts could not be read; they are read again'));
  };
  listener.on(channels.power, serveSleepers);
  listener.onReconnected(serveSleepers);
  const stopLooking = repeat(
    lookForIdleEveryMs,
    async () => {
      await sleep.fulfilRequests();
      await sleep.runOnce();
    },
    warn('Idle hosts could not be looked for; it is tried again'),
  );
  const stopReconciling = repeat(
    reconcileEveryMs,
    () => reconcile(parts),
    warn('What exists could not be held against what is on record; it is tried again'),
  );
  const checks = startChecks({
    ...parts,
    checks: createCheckRecords(database),
    policy: settings.integrityPolicy,
    everyMs: settings.integrityEverySeconds * 1000,
  });
  listener.on(channels.checks, () => {
    checks.wake();
  });
  const workers = createWorkerRecords(database);
  const stopReporting = repeat(
    reportEveryMs,
    async () => {
      const templates = await plansWithTemplate(hypervisor, catalog);
      const memoryAvailableMib = await availableMib();
      await workers.report({
        name,
        hypervisor: hypervisor.name,
        templates,
        memoryAvailableMib,
        memoryTotalMib: hypervisor.name === 'simulated' ? undefined : Math.floor(totalmem() / 1024 ** 2),
        imageVersion: hypervisor.imageVersion,
      });
    },
    warn('The worker could not report itself; it is tried again'),
  );
  const stopExpiring = repeat(
    expireEveryMs,
    () => expireDue(parts),
    warn('Instances whose term is over could not be looked for; it is tried again'),
  );
  const stopFinishing = repeat(
    finishDeletesEveryMs,
    () => finishDeletes(parts),
    warn('Deletes that failed could not be looked for; it is tried again'),
  );
  const stopForgetting = repeat(
    forgetEveryMs,
    () => forgetOldOperations(parts),
    warn('Old operations could not be forgotten; it is tried again in an hour'),
  );
  const leave = new AbortController();
  const pool = createPoolController({
    ...parts,
    plans: allPlans(catalog),
    isBusy: () => operations.isBusy(),
    availableMib,
    admission,
    leave: leave.signal,
  });
  const stopKeepingPool = repeat(
    keepPoolEveryMs,
    () => pool.runOnce(),
    warn('The pool could not be kept; it is tried again'),
  );
  const making = makeTemplates(hypervisor, catalog, logger, leave.signal);

  return {
    announcement: `Worker with the ${hypervisor.name} hypervisor; ${adopted} running hosts adopted`,
    async stop() {
      leave.abort();
      await Promise.all([
        operations.stop(),
        stopReconciling(),
        stopLooking(),
        stopReporting(),
        stopExpiring(),
        stopFinishing(),
        stopForgetting(),
        stopKeepingPool(),
        checks.stop(),
        making,
      ]);
      await workers.remove(name).catch(warn('The worker could not take itself off the books'));
      await hypervisor.close();
      await listener.stop();
      await database.destroy();
    },
  };
}

async function plansWithTemplate(hypervisor: Hypervisor, catalog: Catalog): Promise<string[]> {
  const names: string[] = [];
  for (const { name } of allPlans(catalog)) if (await hypervisor.hasTemplate(name)) names.push(name);
  return names;
}

/** Makes the templates that are missing, one after the other, behind the tenants' work. */
async function makeTemplates(
  hypervisor: Hypervisor,
  catalog: Catalog,
  logger: Logger,
  leave: AbortSignal,
): Promise<void> {
  const isAborted = () => leave.aborted;
  for (const plan of allPlans(catalog).filter(({ fromTemplate }) => fromTemplate)) {
    if (isAborted()) return;
    try {
      await hypervisor.makeTemplate(
        { planName: plan.name, shape: plan.shape },
        (progress) => {
          logger.info({ plan: plan.name }, progress);
        },
        leave,
      );
    } catch (error) {
      if (isAborted()) return;
      logger.error(
        { plan: plan.name, err: error },
        'A template could not be made; hosts of this plan boot cold',
      );
    }
  }
}
