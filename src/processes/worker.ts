import { hostname } from 'node:os';
import { readCatalog } from '../config/read-catalog.ts';
import { siteId } from '../config/secrets.ts';
import type { Settings } from '../config/settings.ts';
import { createAdoption } from '../controllers/adoption.ts';
import { type Controller, startControllers } from '../controllers/controller.ts';
import { createDiskGuard } from '../controllers/disk-guard.ts';
import { expireInstances } from '../controllers/expiry.ts';
import { retryFailedDeletes } from '../controllers/failed-deletes.ts';
import { createHaltedHostsController } from '../controllers/halted-hosts.ts';
import { sendHeartbeat } from '../controllers/heartbeat.ts';
import { compareHosts } from '../controllers/compare-hosts.ts';
import { createGuestClocks, guestClocksEveryMs } from '../controllers/guest-clocks.ts';
import { createIdleController } from '../controllers/idle.ts';
import { createIntegrityController } from '../controllers/integrity.ts';
import { availableMib } from '../controllers/node-memory.ts';
import { createNodeRulesController } from '../controllers/node-rules.ts';
import { createPoolController } from '../controllers/pool.ts';
import { createPreparation } from '../controllers/preparation.ts';
import { createPowerRequestController } from '../controllers/power-requests.ts';
import { createPowerSwitch } from '../controllers/power-switch.ts';
import { memoryLost, restartHost } from '../controllers/restart-host.ts';
import { recordOwners } from '../controllers/record-owners.ts';
import { createProcessorShares } from '../controllers/processor-shares.ts';
import { createReconciler } from '../controllers/reconcile.ts';
import { recordDifferences } from '../controllers/record-differences.ts';
import { deleteOldOperations } from '../controllers/retention.ts';
import { allPlans, restoredPlans } from '../core/catalog/lookup.ts';
import { requireCapabilities } from '../core/hypervisor/require-capabilities.ts';
import { leaseMs } from '../core/lease-duration.ts';
import { createHistoryWatch } from '../history/watch.ts';
import { bestEffort } from '../history/revocation-journal.ts';
import { createOwnerNotes } from '../hypervisors/owner-notes.ts';
import { openHypervisor } from '../hypervisors/open.ts';
import type { Logger } from '../lib/logger.ts';
import { withTimeout } from '../lib/with-timeout.ts';
import { startLeaseLoop } from '../operations/lease-loop.ts';
import type { Workflows } from '../operations/workflow.ts';
import { workflows } from '../operations/workflows.ts';
import { type Channel, channels } from '../postgres/channels.ts';
import { createAuditTrail } from '../postgres/audit.ts';
import { openDatabase, processTimeouts } from '../postgres/database.ts';
import { createCurrentImageRecord } from '../postgres/current-image.ts';
import { createHistoryRecords, requireConfirmedHistory } from '../postgres/database-history.ts';
import { createDifferenceRecords } from '../postgres/host-differences.ts';
import { createNodeRuleRecords } from '../postgres/node-rules.ts';
import { createCheckRecords } from '../postgres/host-checks.ts';
import { startListener } from '../postgres/listener.ts';
import { createRevocations } from '../postgres/revocations.ts';
import { refuseOwner } from '../postgres/server/database-roles.ts';
import { createStore } from '../postgres/store.ts';
import { mergeTotals } from '../postgres/totals.ts';
import { createWorkerRecords } from '../postgres/workers.ts';
import { requireDatabaseUrl } from './database-url.ts';
import { createHostsLease, renewHostsLeaseEveryMs } from './hosts-lease.ts';
import { requireInstallation } from './installation.ts';
import { highestMark, journalFolders, openJournal } from './installation-memory.ts';
import { slotRules } from './slot-rules.ts';
import type { RunningProcess } from './running-process.ts';

/** How long a worker that is asked to stop waits for acts in progress, in milliseconds. */
const stopMs = 10_000;

/** What a test replaces in a worker (tools/chaos/worker.ts). Production never sets it. */
export interface WorkerOverrides {
  readonly workflows?: Workflows;
  /** Length of the operations' leases, in milliseconds. */
  readonly leaseMs?: number;
}

/** The process that drives the hypervisor. It is privileged, and listens on no port. */
export async function startWorker(
  settings: Settings,
  logger: Logger,
  overrides: WorkerOverrides = {},
): Promise<RunningProcess> {
  const catalog = await readCatalog(settings);
  const plans = allPlans(catalog);
  const name = `${hostname()}/${await siteId(settings)}`;

  const connectionString = await requireDatabaseUrl(settings, 'worker');
  // To confirm the history of the database, which everything else requires.
  const unchecked = openDatabase(connectionString, { maxConnections: 2, timeouts: processTimeouts });
  await refuseOwner(unchecked, 'worker');
  await requireInstallation(settings, unchecked, 'worker');
  const rules = slotRules(settings, catalog);
  const uncheckedStore = createStore(unchecked, rules);
  const lease = await createHostsLease(uncheckedStore.records, settings);
  await lease.acquire();
  const hypervisor = await openHypervisor(settings, logger, {
    loadAhead: true,
    restoredPlans: restoredPlans(plans),
  });
  requireCapabilities(hypervisor, catalog);
  const notes = createOwnerNotes(settings.stateDirectory);
  const watch = createHistoryWatch({
    records: createHistoryRecords(unchecked),
    highest: highestMark(settings),
    folders: journalFolders(settings),
    async compareHosts() {
      const unconfirmed = { store: uncheckedStore, hypervisor, logger };
      const differing = await recordDifferences({
        ...{ ...unconfirmed, differences: createDifferenceRecords(unchecked), notes },
      });
      await compareHosts(unconfirmed);
      return differing;
    },
    audit: createAuditTrail(unchecked),
    logger,
  });
  await watch.runOnce();
  const check = requireConfirmedHistory(highestMark(settings));
  const database = openDatabase(connectionString, { timeouts: processTimeouts, check });
  const store = createStore(database, rules);
  const journal = await openJournal(settings, 'worker', logger);
  const listener = await startListener({
    connectionString,
    listenTo: [
      channels.operations,
      channels.acknowledgements,
      channels.checks,
      channels.power,
      channels.differences,
    ],
    onLost: (error) => {
      logger.warn({ err: error }, 'The connection to Postgres was lost; reconnecting');
    },
  });

  const stopping = new AbortController();
  const { signal } = stopping;
  const admission = { reserveMib: settings.memoryReserveMib, overcommit: settings.memoryOvercommit };
  const diskAdmission = { reserveMib: settings.diskReserveMib, overcommit: settings.diskOvercommit };
  const deps = { store, hypervisor, logger };
  await recordOwners(deps);
  await compareHosts(deps);
  const adoption = createAdoption(deps);
  const adopted = await adoption.runOnce();
  const differences = createDifferenceRecords(database);

  const operations = startLeaseLoop({
    ...deps,
    workflows: overrides.workflows ?? workflows,
    revocations: createRevocations(database, listener, bestEffort(journal)),
    owners: differences,
    ownerNotes: notes,
    name,
    leaseMs: overrides.leaseMs ?? leaseMs,
  });
  const wakeOperations = () => {
    operations.wake();
  };
  listener.on(channels.operations, wakeOperations);
  listener.onReconnected(wakeOperations);

  const power = createPowerSwitch({
    ...{ records: store.records, hypervisor, logger },
    restart: (host) => restartHost(deps, host, memoryLost),
  });
  const powerRequests = createPowerRequestController({ ...deps, records: store.records, power, admission });
  const idle = createIdleController({
    ...{ records: store.records, hypervisor, logger, power },
    pauseAfterMs: settings.idleAfterSeconds * 1_000,
    suspendAfterMs: settings.suspendAfterSeconds * 1_000,
  });
  const integrity = createIntegrityController({
    ...{ ...deps, checks: createCheckRecords(database), signal },
    policy: settings.integrityPolicy,
  });
  const graceSeconds = settings.orphanGraceSeconds;
  const reconciler = createReconciler({ ...deps, differences, notes, graceSeconds });
  const pool = createPoolController({
    ...{ ...deps, plans, size: catalog.pool, admission, diskAdmission, availableMib, signal },
    isBusy: () => operations.isBusy(),
  });
  const nodeRules = createNodeRulesController({ ...deps, records: createNodeRuleRecords(database), name });
  const clocks = createGuestClocks({ ...deps, records: store.records });
  const workers = createWorkerRecords(database);
  let show: ((progress: string) => void) | undefined;
  const preparation = createPreparation({
    ...{ hypervisor, plans, logger, signal },
    report: (progress) => {
      if (show === undefined) logger.info({}, progress);
      else show(progress);
    },
  });
  const image = createCurrentImageRecord(database);
  const guard = createDiskGuard({ ...deps, records: store.records, rules: diskAdmission });
  const processorShares = createProcessorShares({ records: store.records, hypervisor });
  const haltedHosts = createHaltedHostsController({ ...deps, records: store.records, power, guard });

  const controllers: readonly Controller<Channel>[] = [
    {
      name: 'Power requests',
      everyMs: 5_000,
      wakeOn: [channels.power],
      run: () => powerRequests.runOnce(),
    },
    { name: 'The idle check', everyMs: 5_000, run: () => idle.runOnce() },
    {
      name: 'Connecting running hosts',
      everyMs: 5_000,
      async run() {
        await adoption.runOnce();
      },
    },
    { name: 'The comparison of hosts', everyMs: 30_000, run: () => compareHosts(deps) },
    {
      name: 'Reconciliation',
      everyMs: 5_000,
      wakeOn: [channels.differences],
      run: () => reconciler.runOnce(),
    },
    {
      name: 'The integrity check',
      everyMs: settings.integrityEverySeconds * 1_000,
      wakeOn: [channels.checks],
      run: (trigger) => integrity.runOnce(trigger),
    },
    {
      name: 'The lease on the hosts',
      everyMs: renewHostsLeaseEveryMs,
      async run() {
        if (await lease.renew()) return;
        logger.error({}, 'Workers of another state directory have taken over the hosts; this worker ends');
        process.kill(process.pid, 'SIGTERM');
      },
    },
    { name: "The watch over the database's history", everyMs: 1_000, run: () => watch.runOnce() },
    { name: "The check of the node's rules", everyMs: 2_000, run: () => nodeRules.runOnce() },
    {
      name: 'The heartbeat',
      everyMs: 5_000,
      run: () =>
        sendHeartbeat({
          name,
          hypervisor,
          plans,
          workers,
          preparation,
          image,
          diskReserveMib: settings.diskReserveMib,
        }),
    },
    { name: "Correcting guests' clocks", everyMs: guestClocksEveryMs, run: () => clocks.runOnce() },
    { name: 'Instance expiry', everyMs: 5_000, run: () => expireInstances(deps) },
    { name: 'The search for failed deletes', everyMs: 30_000, run: () => retryFailedDeletes(deps) },
    { name: 'Deleting old operations', everyMs: 3_600_000, run: () => deleteOldOperations(deps) },
    { name: 'The disk guard', everyMs: 1_000, run: () => guard.runOnce() },
    { name: 'Sharing the processors', everyMs: 2_000, run: () => processorShares.runOnce() },
    { name: 'The check of halted hosts', everyMs: 5_000, run: () => haltedHosts.runOnce() },
    { name: 'Merging totals', everyMs: 60_000, run: () => mergeTotals(database) },
    { name: 'Pool maintenance', everyMs: 1_000, run: () => pool.runOnce() },
    { name: 'Preparing the image and the template', everyMs: 60_000, run: () => preparation.runOnce() },
  ];
  const stopControllers = startControllers(controllers, { logger, notifications: listener });

  return {
    announcement: `Worker with the ${hypervisor.name} hypervisor; ${adopted} running hosts adopted`,
    preparation: {
      ready: preparation.ready,
      show(to) {
        show = to;
        void preparation.ready.then(() => (show = undefined));
      },
    },
    async stop() {
      stopping.abort();
      // Whatever still hangs is resumed or rolled back by the next worker, as after a kill.
      await withTimeout(
        stopMs,
        'acts in progress',
        Promise.all([operations.stop(), stopControllers()]),
      ).catch((error: unknown) => {
        logger.warn({ err: error }, 'The worker ends although acts on hosts are in progress');
      });
      await workers.remove(name).catch((error: unknown) => {
        logger.warn({ err: error }, 'The worker could not be deregistered; its row in `workers` remains');
      });
      await hypervisor.close();
      await listener.stop();
      await journal.close();
      await database.destroy();
      await unchecked.destroy();
    },
  };
}
