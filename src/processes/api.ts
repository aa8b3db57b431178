import { createAuditTrail } from '../postgres/audit.ts';
import { readCatalog } from '../config/read-catalog.ts';
import { type BrokerCredentials, brokerCredentials } from '../config/secrets.ts';
import type { Settings } from '../config/settings.ts';
import { listenerTls } from '../config/tls.ts';
import { userIds } from '../config/users.ts';
import { createBindings } from '../core/broker/bindings.ts';
import { createInstances } from '../core/broker/instances.ts';
import { createParameterRules } from '../core/broker/parameter-rules.ts';
import { refuseDroppedPlans } from '../core/catalog/dropped-plans.ts';
import { createHostChecks } from '../core/host-checks.ts';
import { poolState } from '../core/pool-state.ts';
import { createPlatforms } from '../core/platforms.ts';
import type { Logger } from '../lib/logger.ts';
import { credentialDigest } from '../core/ports/platforms.ts';
import { longestAnswerMs } from '../http/limits.ts';
import { listen } from '../http/listen.ts';
import { createMgmtApp } from '../http/mgmt/app.ts';
import { createOsbApp } from '../http/osb/app.ts';
import { renderCredentials } from '../http/osb/credentials-body.ts';
import { withRequestIdentity } from '../http/request-log.ts';
import { warmUp } from '../http/warm-up.ts';
import { dropPrivileges } from './drop-privileges.ts';
import { createCertificateAuthorityStore } from '../postgres/certificate-authorities.ts';
import { createCertificateRequestQueue } from '../postgres/certificate-requests.ts';
import { channels } from '../postgres/channels.ts';
import { seedSlots } from '../postgres/database.ts';
import { createHistoryRecords } from '../postgres/database-history.ts';
import { createGatewayNames } from '../postgres/gateway-names.ts';
import { createGatewayRecords } from '../postgres/gateways.ts';
import { startListener } from '../postgres/listener.ts';
import { createOperationWaiter } from '../postgres/operation-waiter.ts';
import { createCheckRequests } from '../postgres/host-checks.ts';
import { createHostDifferences } from '../postgres/host-differences.ts';
import { createOverview } from '../postgres/overview.ts';
import { createPlatformStore } from '../postgres/platforms.ts';
import { createCurrentImageRecord, trackImageVersion } from '../postgres/current-image.ts';
import { createCredentialDirectory } from '../postgres/credential-directory.ts';
import { createMasterKeyEvents, createMasterKeyStore } from '../postgres/master-keys.ts';
import { createPresence, createPresences } from '../postgres/presence.ts';
import { createRevocations } from '../postgres/revocations.ts';
import { createSealedData } from '../postgres/sealed-columns.ts';
import { createStore } from '../postgres/store.ts';
import { createPlansInUse } from '../postgres/plans-in-use.ts';
import { createRestartReplay } from '../history/replay.ts';
import { openCertificateAuthorities } from '../certificates/ca-service.ts';
import { startKeyRotation } from '../secrets/key-rotation.ts';
import { openKeyRing, rereadMasterKeys } from '../secrets/master-key-file.ts';
import { openCheckedDatabase } from './checked-database.ts';
import { requireDatabaseUrl } from './database-url.ts';
import { journalFolder, openJournal } from './installation-memory.ts';
import { slotRules } from './slot-rules.ts';
import { repeat } from '../lib/repeat.ts';
import type { RunningProcess } from './running-process.ts';

const housekeepingEveryMs = 15_000;
const replayEveryMs = 1_000;

/** The process that serves platforms and operators. It holds the keys of the CAs, and is unprivileged. */
export async function startApi(settings: Settings, processLogger: Logger): Promise<RunningProcess> {
  const logger = withRequestIdentity(processLogger);
  const catalog = await readCatalog(settings);
  const credentials = await brokerCredentials(settings);
  const tls = await listenerTls(settings);
  const simulated = settings.hypervisor === 'simulated';

  const connectionString = await requireDatabaseUrl(settings, 'api');
  const database = await openCheckedDatabase(settings, 'api', connectionString, { logger });
  await refuseDroppedPlans(createPlansInUse(database), catalog);
  const vault = await openKeyRing(settings, createMasterKeyStore(database));
  const blocks = slotRules(settings, catalog);
  await seedSlots(database, blocks);
  const store = createStore(database, blocks);
  const listener = await startListener({
    connectionString,
    listenTo: [
      channels.finished,
      channels.acknowledgements,
      channels.certificateRequests,
      channels.platforms,
      channels.masterKeys,
      channels.masterKeyFile,
      channels.presence,
      channels.certificateAuthorities,
      channels.image,
    ],
    onLost: (error) => {
      logger.warn({ err: error }, 'The connection to Postgres was lost; reconnecting');
    },
  });

  const platforms = createPlatformStore(database);
  const firstPlatform = await platforms.ensure('cloudfoundry');
  const directory = await createCredentialDirectory({
    database,
    listener,
    fixed: passwordsOf(credentials).map((password) => ({
      digest: credentialDigest(credentials.broker.username, password),
      platform: firstPlatform,
    })),
    onError: (error) => {
      logger.error(
        { err: error },
        "The platforms' credentials could not be read again; the former ones apply",
      );
    },
  });
  const presences = createPresences(database, listener);
  const gatewayNames = createGatewayNames(database);
  await gatewayNames.replace([
    ...new Set([settings.externalHost, 'localhost', '127.0.0.1', ...settings.gatewayNames]),
  ]);
  const authorities = await openCertificateAuthorities({
    ...{ store: createCertificateAuthorityStore(database, listener), presences, vault, gatewayNames, logger },
  });
  const keys = startKeyRotation({
    store: createMasterKeyStore(database),
    events: createMasterKeyEvents(database, listener),
    sealedData: createSealedData(database),
    ring: vault,
    presence: createPresence(database, 'api'),
    presences,
    readText: () => rereadMasterKeys(settings),
    logger,
  });
  const imageVersion = await trackImageVersion({
    ...{ image: createCurrentImageRecord(database), listener },
    onError: (error) => {
      logger.warn({ err: error }, 'The version of the image could not be read again; the former one applies');
    },
  });
  const certificateRequests = createCertificateRequestQueue(database, listener);
  const stopAnswering = certificateRequests.answer(
    (request) => authorities.signForGateway(request),
    (error) => {
      logger.error(
        { err: error },
        "A gateway's certificate request could not be answered; the gateway asks again",
      );
    },
  );
  const gateways = createGatewayRecords(database);
  const stopHousekeeping = startHousekeeping(logger, [
    () => gateways.deleteDead(),
    () => gateways.deleteLateAcknowledgements(),
    () => certificateRequests.deleteAbandoned(),
    () => presences.deleteDead(),
  ]);

  const journal = await openJournal(settings, 'api', logger);
  const replay = createRestartReplay({
    ...{ records: createHistoryRecords(database), logger },
    folders: [journalFolder(settings, 'api')],
  });
  const stopReplay = repeat(
    replayEveryMs,
    () => replay.runOnce(),
    (error) => {
      logger.debug({ err: error }, `The journal was not replayed; retrying in ${replayEveryMs / 1000} s`);
    },
  );

  const rules = createParameterRules(catalog);
  const audit = createAuditTrail(database);
  const diskAdmission = { reserveMib: settings.diskReserveMib, overcommit: settings.diskOvercommit };
  const osb = createOsbApp({
    audit,
    catalog,
    imageVersion: imageVersion.current,
    simulated,
    credentials: () => directory.known(),
    ratePerSecond: settings.ratePerSecond,
    answerWithinMs: longestAnswerMs,
    logger,
    instances: createInstances({
      catalog,
      rules,
      store,
      waiter: createOperationWaiter(listener, store.records),
      syncWaitMs: settings.syncWaitMs,
      admission: { reserveMib: settings.memoryReserveMib, overcommit: settings.memoryOvercommit },
      diskAdmission,
      imageVersion: imageVersion.current,
      notice: simulated ? 'SIMULATED, no virtual machine: ' : '',
      logger,
    }),
    bindings: createBindings({
      catalog,
      rules,
      store,
      issuer: authorities.issuer,
      vault,
      revocations: createRevocations(database, listener, journal),
      address: { host: settings.externalHost, gatewayPort: settings.gatewayPort },
      renderCredentials,
      logger,
    }),
  });
  const overview = createOverview(database);
  const mgmt = createMgmtApp({
    keys,
    certificateAuthorities: authorities,
    audit,
    overview,
    pool: () => poolState(catalog, store.records, overview),
    records: store.records,
    platforms: createPlatforms(platforms),
    checks: createHostChecks(createCheckRequests(database)),
    differences: createHostDifferences(database),
    diskAdmission,
    credentials: credentials.mgmt,
    hypervisor: settings.hypervisor,
    ratePerSecond: settings.ratePerSecond,
    logger,
  });

  // Before root is dropped: libraries load modules at their first use, from a folder that only root may be able to read.
  await warmUp(osb, credentials.broker);
  await warmUp(mgmt, credentials.mgmt);
  dropPrivileges(userIds(settings.uidBase).api);
  const osbListener = await listen(osb, {
    host: settings.listenAddress,
    port: settings.port,
    setting: 'BERTH_PORT',
    tls,
  });
  const mgmtListener = await listen(mgmt, {
    host: settings.mgmtAddress,
    port: settings.mgmtPort,
    setting: 'BERTH_MGMT_PORT',
  });

  return {
    announcement: `OSB API on ${tls === undefined ? 'http' : 'https'}://${settings.listenAddress}:${osbListener.port}, management on ${settings.mgmtAddress}:${mgmtListener.port}`,
    async stop() {
      await Promise.all([osbListener.stop(), mgmtListener.stop()]);
      stopAnswering();
      directory.stop();
      await stopHousekeeping();
      await stopReplay();
      await journal.close();
      imageVersion.stop();
      await keys.stop();
      await authorities.stop();
      await listener.stop();
      await database.destroy();
    },
  };
}

/** The password of the first platform and, during its rotation, the former one. */
function passwordsOf({ broker, formerPassword }: BrokerCredentials): readonly string[] {
  return formerPassword === undefined ? [broker.password] : [broker.password, formerPassword];
}

/** Runs the tasks periodically: they delete rows that ended processes have left. */
function startHousekeeping(logger: Logger, tasks: readonly (() => Promise<unknown>)[]): () => Promise<void> {
  return repeat(
    housekeepingEveryMs,
    async () => {
      for (const task of tasks) await task();
    },
    (error) => {
      logger.warn({ err: error }, `Housekeeping failed; retrying in ${housekeepingEveryMs / 1000} s`);
    },
  );
}
