import type { Settings } from '../config/settings.ts';
import { userIds } from '../config/users.ts';
import type { Logger } from '../lib/logger.ts';
import { startCountReports } from '../gateway/count-reports.ts';
import { createGateway, type Gateway } from '../gateway/gateway.ts';
import { dropPrivileges } from './drop-privileges.ts';
import { createGatewayCertificateAuthorities } from '../postgres/certificate-authorities.ts';
import { createCertificateRequester } from '../postgres/certificate-requests.ts';
import { channels } from '../postgres/channels.ts';
import { requireConfirmedHistory } from '../postgres/database-history.ts';
import { createGatewayCounts } from '../postgres/gateway-counts.ts';
import { leaseThreadFile, startLeaseRenewal } from '../postgres/lease-renewal.ts';
import { startListener } from '../postgres/listener.ts';
import { createLiveBindingsSource } from '../postgres/live-bindings.ts';
import { createPresence } from '../postgres/presence.ts';
import { obtainGatewayTls } from '../certificates/gateway-tls.ts';
import { openCheckedDatabase } from './checked-database.ts';
import { requireDatabaseUrl } from './database-url.ts';
import { highestMark } from './installation-memory.ts';
import type { RunningProcess } from './running-process.ts';

/** The process that serves apps: TLS in front of every host's Docker engine. It has no CA's key, and is unprivileged. */
export async function startGateway(settings: Settings, logger: Logger): Promise<RunningProcess> {
  const connectionString = await requireDatabaseUrl(settings, 'gateway');
  const database = await openCheckedDatabase(settings, 'gateway', connectionString, {
    ...{ maxConnections: 2, logger },
  });
  const listener = await startListener({
    connectionString,
    listenTo: [channels.certificateRequests, channels.certificateAuthorities],
    onLost: (error) => {
      logger.warn({ err: error }, 'The connection to Postgres was lost; reconnecting');
    },
  });

  const certificate = await obtainGatewayTls({
    requests: createCertificateRequester(database, listener),
    cas: createGatewayCertificateAuthorities(database, listener),
    presence: createPresence(database, 'gateway'),
    logger,
  });
  const renewal = await startLeaseRenewal({
    file: leaseThreadFile,
    connectionString,
    ...{ renewEveryMs: 1_000, timeoutMs: 2_000, longestStallMs: 10_000 },
    logger,
  });
  const gateway: Gateway = createGateway({
    source: createLiveBindingsSource({
      ...{ connectionString, renewal },
      check: requireConfirmedHistory(highestMark(settings)),
      connections: () => gateway.state().connections,
    }),
    tls: certificate.tls,
    port: settings.gatewayPort,
    host: settings.listenAddress,
    limits: {
      maxConnections: settings.gatewayConnections,
      maxConnectionsPerTenant: settings.gatewayTenantConnections,
      maxConnectionsPerHost: settings.gatewayHostConnections,
      maxConnectionsPerBinding: settings.gatewayBindingConnections,
    },
    logger,
  });
  // Only now: libraries load modules at their first use, from a folder that only root may be able to read.
  dropPrivileges(userIds(settings.uidBase).gateway);
  const { port } = await gateway.start().catch((cause: unknown) => {
    throw new Error(
      `Port ${settings.gatewayPort} on ${settings.listenAddress} can't be used: stop the process that uses it, or set BERTH_GATEWAY_PORT to another port.`,
      { cause },
    );
  });
  const reports = startCountReports({
    counters: gateway.state().counters,
    counts: createGatewayCounts(database),
    everyMs: 5_000,
    logger,
  });
  const stopRenewing = certificate.watch((tls) => {
    gateway.replaceTls(tls);
  });

  return {
    announcement: `Gateway on ${settings.listenAddress}:${port}`,
    async stop() {
      await stopRenewing();
      await gateway.stop();
      await renewal.stop();
      await reports.stop();
      await listener.stop();
      await database.destroy();
    },
  };
}
