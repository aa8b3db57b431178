/* eslint-disable max-lines -- one broker in one process, wired as the api and the worker are */
import { randomUUID } from 'node:crypto';
import { createAuditTrail } from '../../src/postgres/audit.ts';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Express } from 'express';
import supertest from 'supertest';
import { createBindings } from '../../src/core/broker/bindings.ts';
import { createInstances } from '../../src/core/broker/instances.ts';
import { createHostChecks } from '../../src/core/host-checks.ts';
import { createPlatforms } from '../../src/core/platforms.ts';
import { poolState } from '../../src/core/pool-state.ts';
import { createParameterRules } from '../../src/core/broker/parameter-rules.ts';
import { allPlans, restoredPlans } from '../../src/core/catalog/lookup.ts';
import { loadCatalog } from '../../src/core/catalog/load.ts';
import type { Capabilities } from '../../src/core/hypervisor/capabilities.ts';
import type { Hypervisor } from '../../src/core/hypervisor/hypervisor.ts';
import type { Logger } from '../../src/lib/logger.ts';
import { workflows } from '../../src/operations/workflows.ts';
import { credentialDigest } from '../../src/core/ports/platforms.ts';
import { createSimulatedHypervisor } from '../../src/hypervisors/simulated/simulated.ts';
import type { MethodDeadlines } from '../../src/hypervisors/with-deadlines.ts';
import type { Faults } from '../../src/hypervisors/with-faults.ts';
import { longestAnswerMs } from '../../src/http/limits.ts';
import { withRequestIdentity } from '../../src/http/request-log.ts';
import { createMgmtApp } from '../../src/http/mgmt/app.ts';
import { createOsbApp } from '../../src/http/osb/app.ts';
import { renderCredentials } from '../../src/http/osb/credentials-body.ts';
import type { IntegrityPolicy } from '../../src/core/ports/host-checks.ts';
import { startControllers, type Trigger } from '../../src/controllers/controller.ts';
import { compareHosts } from '../../src/controllers/compare-hosts.ts';
import { recordOwners } from '../../src/controllers/record-owners.ts';
import { createIntegrityController } from '../../src/controllers/integrity.ts';
import { expireInstances } from '../../src/controllers/expiry.ts';
import { retryFailedDeletes } from '../../src/controllers/failed-deletes.ts';
import { createPoolController } from '../../src/controllers/pool.ts';
import { createReconciler } from '../../src/controllers/reconcile.ts';
import { startLeaseLoop, type LeaseLoop } from '../../src/operations/lease-loop.ts';
import { createCertificateAuthority } from '../../src/certificates/ca.ts';
import { issueClientCertificate } from '../../src/certificates/client-certificate.ts';
import { createKeyRing } from '../../src/secrets/key-ring.ts';
import { createMasterKeyText, masterKeyFromText } from '../../src/secrets/master-key.ts';
import { channels } from '../../src/postgres/channels.ts';
import { openDatabase, processTimeouts, seedSlots } from '../../src/postgres/database.ts';
import { startListener } from '../../src/postgres/listener.ts';
import { createCheckRecords, createCheckRequests } from '../../src/postgres/host-checks.ts';
import { createOperationWaiter } from '../../src/postgres/operation-waiter.ts';
import { createDifferenceRecords, createHostDifferences } from '../../src/postgres/host-differences.ts';
import { createOwnerNotes } from '../../src/hypervisors/owner-notes.ts';
import { createOverview } from '../../src/postgres/overview.ts';
import { createPlatformStore } from '../../src/postgres/platforms.ts';
import { createCredentialDirectory } from '../../src/postgres/credential-directory.ts';
import { createRevocations } from '../../src/postgres/revocations.ts';
import { createStore } from '../../src/postgres/store.ts';
import { silentLogger } from './logger.ts';
import { createTestDatabase } from './postgres.ts';

/** For tests that lose no transactions. */
export const noJournal = { append: () => Promise.resolve() };
export const ids = { service: 'service-1', plan: 'plan-small', otherPlan: 'plan-large' };
export const credentials = { username: 'platform', password: 'open:sesame' };
export const operator = { username: 'operator', password: 'look' };

const host = { vcpus: 1, memory_mib: 768, disk_gib: 4, published_ports: 10 };
export const catalogFile = {
  offerings: [
    {
      id: ids.service,
      name: 'container-host',
      description: 'A container host',
      plans: [
        { id: ids.plan, name: 'small', description: 'Small', free: true, host },
        { id: ids.otherPlan, name: 'large', description: 'Large', free: false, host: { ...host, vcpus: 4 } },
      ],
    },
  ],
};

/**
 * A broker inside the test process, over real Postgres, with simulated hosts. api and worker use their own database
 * roles; `database` and `store` belong to the owner of the tables, for tests that inspect or change rows.
 */
export async function makeTestBroker(
  server: string,
  options: {
    syncWaitMs?: number;
    faults?: Faults;
    liveGrowth?: Capabilities['liveGrowth'];
    /** Of the driver's methods. */
    deadlines?: MethodDeadlines;
    slots?: number;
    orphanGraceSeconds?: number;
    /** How long a freed slot rests, in seconds. */
    restSeconds?: number;
    ratePerSecond?: number;
    answerWithinMs?: number;
    logger?: Logger;
    /** In the form of `BERTH_CATALOG`. */
    catalog?: object;
  } = {},
) {
  const {
    syncWaitMs = 10_000,
    faults,
    liveGrowth,
    deadlines,
    slots = 50,
    orphanGraceSeconds = 3_600,
    restSeconds = 0,
    ratePerSecond = 5_000,
    answerWithinMs = longestAnswerMs,
    logger: processLogger = silentLogger,
    catalog: file = catalogFile,
  } = options;
  const logger = withRequestIdentity(processLogger);
  const testDatabase = await createTestDatabase(server);
  const { connectionString } = testDatabase;
  const urls = await testDatabase.roleUrls();
  const stateDirectory = await mkdtemp(path.join(tmpdir(), 'berth-test-'));
  const database = openDatabase(connectionString);
  const apiDatabase = openDatabase(urls.api, { timeouts: processTimeouts });
  const workerDatabase = openDatabase(urls.worker, { timeouts: processTimeouts });
  const blocks = { first: 20_000, size: 20, count: slots, restSeconds };
  await seedSlots(apiDatabase, blocks);
  const platform = await createPlatformStore(apiDatabase).ensure('test');
  const platformId = platform.id;
  const listener = await startListener({
    connectionString,
    listenTo: Object.values(channels),
    onLost: () => undefined,
  });
  const store = createStore(database, blocks);
  const apiStore = createStore(apiDatabase, blocks);
  const catalog = loadCatalog(file, 'test');
  const hypervisor = createSimulatedHypervisor({
    stateDirectory,
    restoredPlans: restoredPlans(allPlans(catalog)),
    ...(faults && { faults }),
    ...(liveGrowth && { liveGrowth }),
    ...(deadlines && { deadlines }),
  });
  await hypervisor.open();
  const revocations = createRevocations(apiDatabase, listener, noJournal);
  const rules = createParameterRules(catalog);
  const authority = await createCertificateAuthority({ commonName: 'test', validForDays: 3650 });
  const deps = { store: createStore(workerDatabase, blocks), hypervisor, logger };
  const masterKey = createMasterKeyText();
  const vault = createKeyRing([masterKeyFromText(masterKey)]);

  const directory = await createCredentialDirectory({
    database: apiDatabase,
    listener,
    fixed: [{ digest: credentialDigest(credentials.username, credentials.password), platform }],
    onError: (error) => {
      throw error;
    },
  });

  const audit = createAuditTrail(apiDatabase);
  const diskAdmission = { reserveMib: 2048, overcommit: 4 };
  const makeApp = (waitMs: number): Express =>
    createOsbApp({
      audit,
      catalog,
      imageVersion: () => hypervisor.imageVersion(),
      simulated: false,
      credentials: () => directory.known(),
      ratePerSecond,
      answerWithinMs,
      logger,
      instances: createInstances({
        catalog,
        rules,
        store: apiStore,
        waiter: createOperationWaiter(listener, apiStore.records),
        syncWaitMs: waitMs,
        admission: { reserveMib: 1024, overcommit: 4 },
        diskAdmission,
        imageVersion: () => hypervisor.imageVersion(),
        notice: '',
        logger,
      }),
      bindings: createBindings({
        catalog,
        rules,
        store: apiStore,
        issuer: {
          issue: async (request) => ({
            ...(await issueClientCertificate(authority, request)),
            serverCaPem: authority.certificatePem,
            caIds: { client: randomUUID(), server: randomUUID() },
          }),
        },
        vault,
        revocations,
        address: { host: 'docker.example.org', gatewayPort: 2376 },
        renderCredentials,
        logger,
      }),
    });
  const app = makeApp(syncWaitMs);
  const asynchronous = makeApp(0);
  const overview = createOverview(apiDatabase);
  const mgmt = createMgmtApp({
    keys: { list: () => Promise.resolve([]), rotate: () => Promise.resolve([]) },
    certificateAuthorities: { list: () => Promise.resolve([]), rotate: () => Promise.resolve([]) },
    audit,
    overview,
    pool: () => poolState(catalog, apiStore.records, overview),
    records: store.records,
    platforms: createPlatforms(createPlatformStore(apiDatabase)),
    checks: createHostChecks(createCheckRequests(apiDatabase)),
    differences: createHostDifferences(apiDatabase),
    diskAdmission,
    credentials: operator,
    hypervisor: 'simulated',
    ratePerSecond,
    logger,
  });

  const differences = createDifferenceRecords(workerDatabase);
  const notes = createOwnerNotes(stateDirectory);
  const reconciler = createReconciler({ ...deps, differences, notes, graceSeconds: orphanGraceSeconds });

  const workers: LeaseLoop[] = [];
  const stopChecks: (() => Promise<void>)[] = [];
  const ask = (
    on: Express,
    method: 'get' | 'put' | 'patch' | 'delete',
    route: string,
    as: { username: string; password: string } = credentials,
  ) => {
    const agent = supertest(on);
    return agent[method](route).auth(as.username, as.password).set('X-Broker-API-Version', '2.17');
  };

  return {
    app,
    mgmt,
    /** Encrypts its bindings. */
    vault,
    masterKey,
    database,
    connectionString,
    stateDirectory,
    /** Connection strings, by database role. */
    urls,
    store,
    /** With the worker's database role. */
    workerStore: deps.store,
    hypervisor,
    revocations,
    platformId,
    /** Starts a worker's lease loop; more than one may run. */
    startWorker(name = 'worker', leaseMs = 6_000, quickMs?: number): LeaseLoop {
      const worker = startLeaseLoop({
        ...deps,
        workflows: workflows,
        revocations: createRevocations(workerDatabase, listener, noJournal),
        owners: differences,
        ownerNotes: notes,
        name,
        leaseMs,
        ...(quickMs !== undefined && { quickMs }),
      });
      listener.on(channels.operations, () => {
        worker.wake();
      });
      workers.push(worker);
      return worker;
    },
    /** The worker's integrity checks: those requested, and all every `everyMs`. Returns what stops them. */
    startIntegrityChecks(policy: IntegrityPolicy, everyMs: number): () => Promise<void> {
      const stopping = new AbortController();
      const integrity = createIntegrityController({
        ...deps,
        checks: createCheckRecords(workerDatabase),
        policy,
        signal: stopping.signal,
      });
      const run = (trigger: Trigger) => integrity.runOnce(trigger);
      const stopController = startControllers(
        [{ name: 'The integrity check', everyMs, wakeOn: [channels.checks], run }],
        { logger, notifications: listener },
      );
      const stop = () => {
        stopping.abort();
        return stopController();
      };
      stopChecks.push(stop);
      return stop;
    },
    /** Reconciliation, as a worker process does it. */
    reconcile: () => reconciler.runOnce(),
    notes,
    /** What a worker does with hosts before its first operation. */
    async beginWork() {
      await recordOwners(deps);
      await compareHosts(deps);
    },
    /** A pool controller, as a worker process has one. */
    makePoolController: (
      situation: {
        isBusy?: () => boolean;
        availableMib?: () => number;
        hypervisor?: Partial<Hypervisor>;
      } = {},
    ) =>
      createPoolController({
        ...deps,
        hypervisor: { ...hypervisor, ...situation.hypervisor },
        plans: allPlans(catalog),
        size: catalog.pool,
        isBusy: situation.isBusy ?? (() => false),
        availableMib: () => Promise.resolve(situation.availableMib?.() ?? 10_000),
        admission: { reserveMib: 1_000, overcommit: 4 },
        diskAdmission,
        signal: new AbortController().signal,
      }),
    expireInstances: () => expireInstances(deps),
    retryFailedDeletes: () => retryFailedDeletes(deps),
    ask: (method: 'get' | 'put' | 'patch' | 'delete', route: string) => ask(app, method, route),
    /** As another platform. */
    askAs: (
      as: { username: string; password: string },
      method: 'get' | 'put' | 'patch' | 'delete',
      route: string,
    ) => ask(app, method, route, as),
    /** The same broker with BERTH_SYNC_WAIT_MS=0. */
    askAsynchronous: (method: 'get' | 'put' | 'patch' | 'delete', route: string) =>
      ask(asynchronous, method, route),
    async stop() {
      await Promise.all(stopChecks.map((stop) => stop()));
      await Promise.all(workers.map((worker) => worker.stop()));
      await hypervisor.close();
      directory.stop();
      await listener.stop();
      await Promise.all([database, apiDatabase, workerDatabase].map((one) => one.destroy()));
      await testDatabase.drop();
      await rm(stateDirectory, { recursive: true, force: true });
    },
  };
}

export type TestBroker = Awaited<ReturnType<typeof makeTestBroker>>;

export const instance = (id: string) => `/v2/service_instances/${id}`;
export const binding = (id: string, bindingId: string) => `${instance(id)}/service_bindings/${bindingId}`;
export const hints = `service_id=${ids.service}&plan_id=${ids.plan}`;
export const provisionBody = {
  service_id: ids.service,
  plan_id: ids.plan,
  organization_guid: 'org-1',
  space_guid: 'space-1',
};
export const bindBody = { service_id: ids.service, plan_id: ids.plan };
