import type { Settings } from '../config/settings.ts';
import { userIds } from '../config/users.ts';
import type { Logger } from '../lib/logger.ts';
import { createGateway, type Gateway } from '../gateway/gateway.ts';
import { dropPrivileges } from './drop-privileges.ts';
import { createGatewayCertificateAuthorities } from '../postgres/certificate-authorities.ts';
import { createCertificateRequester } from '../postgres/certificate-requests.ts';
import { channels } from '../postgres/channels.ts';
import { openDatabase, roleBounds } from '../postgres/database.ts';
import { refuseOwner } from '../postgres/server/database-roles.ts';
import { startListener } from '../postgres/listener.ts';
import { createLiveBindingsSource } from '../postgres/live-bindings.ts';
import { createPresence } from '../postgres/presence.ts';
import { obtainGatewayTls } from '../certificates/gateway-tls.ts';
import { requireDatabaseUrl } from './database-url.ts';
import type { RunningProcess } from './running-process.ts';

/** The role that faces apps: TLS in front of every host's engine. It holds no authority's key, and no rights. */
export async function startGateway(settings: Settings, logger: Logger): Promise<RunningProcess> {
  const connectionString = await requireDatabaseUrl(settings, 'gateway');
  const database = openDatabase(connectionString, { maxConnections: 2, bounds: roleBounds });
  await refuseOwner(database, 'gateway');
  const listener = await startListener({
    connectionString,
    listenTo: [channels.certificateRequests, channels.certificateAuthorities],
    onLost: (error) => {
      logger.warn({ err: error }, 'The connection to Postgres was lost; it is tried again');
    },
  });

  const kept = await obtainGatewayTls({
    requests: createCertificateRequester(database, listener),
    authorities: createGatewayCertificateAuthorities(database, listener),
    presence: createPresence(database, 'gateway'),
    logger,
  });
  const gateway: Gateway = createGateway({
    source: createLiveBindingsSource({
      connectionString,
      connections: () => gateway.state().connections,
    }),
    tls: kept.tls,
    port: settings.gatewayPort,
    host: settings.listenAddress,
    logger,
  });
  // Not earlier: libraries load parts of themselves when they are first used, out of a folder that may be root's.
  dropPrivileges(userIds(settings.uidBase).gateway);
  const { port } = await gateway.start().catch((cause: unknown) => {
    throw new Error(
      `Port ${settings.gatewayPort} on ${settings.listenAddress} can't be used: end what uses it, or set BERTH_GATEWAY_PORT to another one.`,
      { cause },
    );
  });
  const stopKeeping = kept.watch((tls) => {
    gateway.replaceTls(tls);
  });

  return {
    announcement: `Gateway on ${settings.listenAddress}:${port}`,
    async stop() {
      await stopKeeping();
      await gateway.stop();
      await listener.stop();
      await database.destroy();
    },
  };
}
