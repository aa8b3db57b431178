import { X509Certificate } from 'node:crypto';
import type { Knex } from 'knex';
import type { Settings } from '../config/settings.ts';
import { userIds } from '../config/users.ts';
import type { Logger } from '../core/logger.ts';
import { createGateway, type Gateway, type GatewayTls } from '../gateway/gateway.ts';
import { createServerRequest } from '../pki/server-certificate.ts';
import { dropPrivileges } from '../privileges.ts';
import { authorityCertificate } from '../store/authorities.ts';
import { requestCertificate } from '../store/certificate-requests.ts';
import { channels } from '../store/channels.ts';
import { openDatabase } from '../store/database.ts';
import { refuseOwner } from '../store/database-roles.ts';
import { type Listener, startListener } from '../store/listener.ts';
import { createLiveBindingsSource } from '../store/live-bindings.ts';
import { requireDatabaseUrl } from './postgres.ts';
import { repeat } from './repeat.ts';
import type { RunningRole } from './role.ts';

/** How long a gateway waits for an api to sign its certificate, in milliseconds. */
const signingTimeoutMs = 60_000;
const certificateCheckMs = 60 * 60 * 1000;
/** A certificate is renewed when less than this is left of it, in milliseconds. */
const renewBeforeMs = 30 * 24 * 3600 * 1000;

/** The role that faces apps: TLS in front of every host's engine. It holds no authority's key, and no rights. */
export async function startGateway(settings: Settings, logger: Logger): Promise<RunningRole> {
  const connectionString = await requireDatabaseUrl(settings, 'gateway');
  const database = openDatabase(connectionString, { maxConnections: 2 });
  await refuseOwner(database, 'gateway');
  const listener = await startListener({
    connectionString,
    listenTo: [channels.certificates],
    onLost: (error) => {
      logger.warn({ err: error }, 'The connection to Postgres was lost; it is tried again');
    },
  });

  let tls = await certified(database, listener);
  const gateway: Gateway = createGateway({
    source: createLiveBindingsSource({
      connectionString,
      connections: () => gateway.state().connections,
    }),
    tls,
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
  const stopRenewing = repeat(
    certificateCheckMs,
    async () => {
      if (Date.parse(new X509Certificate(tls.cert).validTo) - Date.now() > renewBeforeMs) return;
      tls = await certified(database, listener);
      gateway.replaceTls(tls);
      logger.info({}, "The gateway's certificate was renewed");
    },
    (error) => {
      logger.error({ err: error }, "The gateway's certificate could not be renewed; it is tried again");
    },
  );

  return {
    announcement: `Gateway on ${settings.listenAddress}:${port}`,
    async stop() {
      await stopRenewing();
      await gateway.stop();
      await listener.stop();
      await database.destroy();
    },
  };
}

/** A key of our own, which stays in this process, and a certificate that an api has signed for it. */
async function certified(database: Knex, listener: Listener): Promise<GatewayTls> {
  const { requestPem, privateKeyPem } = await createServerRequest('berth-gateway');
  const cert = await requestCertificate(database, listener, requestPem, signingTimeoutMs);
  const authority = await authorityCertificate(database, 'client');
  if (authority === undefined) throw new Error('no api has made the certificate authorities yet');
  return { key: privateKeyPem, cert, clientAuthorities: [authority] };
}
