import { isDeepStrictEqual } from 'node:util';
import type { GatewayCertificateAuthorities } from '../core/ports/certificate-authorities.ts';
import type { CertificateRequester } from '../core/ports/certificate-requests.ts';
import type { Presence } from '../core/ports/presence.ts';
import { expiryOf } from '../lib/certificate-expiry.ts';
import type { Logger } from '../lib/logger.ts';
import { repeat } from '../lib/repeat.ts';
import { createServerRequest } from './server-certificate.ts';

/** How long a gateway waits for an api to sign its certificate, in milliseconds. */
const signingTimeoutMs = 60_000;
/** Between two comparisons with the CAs in Postgres without a notification; also renews the presence. Milliseconds. */
const refreshMs = 5_000;
/** A certificate is renewed this long before it expires, in milliseconds. */
const renewBeforeMs = 30 * 24 * 3600 * 1000;

/** The gateway's certificate, and the CAs of the clients that it trusts. */
export interface GatewayTls {
  /** The gateway's private key, PEM. */
  readonly key: string;
  /** Its certificate with its chain, PEM. */
  readonly cert: string;
  /** Certificates of the CAs that sign bindings' certificates, PEM each; at least one. */
  readonly clientCas: readonly string[];
}

/** TLS material that follows the rotations of the CAs. */
export interface RenewingTls {
  /** As of the start. */
  readonly tls: GatewayTls;
  /**
   * Renews the material and, after `replace` has put it into use, announces to the apis which CAs this gateway knows.
   * @returns what stops it.
   */
  watch(replace: (tls: GatewayTls) => void): () => Promise<void>;
}

/** Has an api sign a certificate for a private key that never leaves this process. */
export async function obtainGatewayTls(deps: {
  requests: CertificateRequester;
  cas: GatewayCertificateAuthorities;
  presence: Presence;
  logger: Logger;
}): Promise<RenewingTls> {
  const { requests, cas, presence, logger } = deps;
  let { tls, serverCaId, clientCaIds, names } = await obtain();

  async function obtain() {
    // Before the request: if they change meanwhile, the next refresh notices.
    const { names: wanted } = await cas.read();
    const { requestPem, privateKeyPem } = await createServerRequest('berth-gateway');
    const signed = await requests.request(requestPem, signingTimeoutMs);
    const { clients } = await cas.read();
    return {
      tls: {
        key: privateKeyPem,
        cert: signed.chain,
        clientCas: clients.map(({ certificatePem }) => certificatePem),
      },
      serverCaId: signed.ca,
      clientCaIds: clients.map(({ id }) => id),
      names: wanted,
    };
  }

  /** @returns true if `tls` has changed. */
  async function refresh(): Promise<boolean> {
    const known = await cas.read();
    const expiresSoon = expiryOf(tls.cert).getTime() - Date.now() < renewBeforeMs;
    const isNewCa = known.server !== undefined && known.server !== serverCaId;
    if (expiresSoon || isNewCa || !isDeepStrictEqual(known.names, names)) {
      ({ tls, serverCaId, clientCaIds, names } = await obtain());
      logger.info({ ca: serverCaId }, "Renewed the gateway's certificate");
      return true;
    }
    const ids = known.clients.map(({ id }) => id);
    if (ids.length === clientCaIds.length && ids.every((id) => clientCaIds.includes(id))) return false;
    tls = { ...tls, clientCas: known.clients.map(({ certificatePem }) => certificatePem) };
    clientCaIds = ids;
    return true;
  }

  return {
    tls,
    watch(replace) {
      let queue: Promise<void> = Promise.resolve();
      const update = () => {
        queue = queue
          .then(async () => {
            if (await refresh()) replace(tls);
            await presence.announce([serverCaId, ...clientCaIds]);
          })
          .catch((error: unknown) => {
            logger.error(
              { err: error },
              `Updating the gateway's certificate and trusted CAs failed; retrying in ${refreshMs / 1000} s`,
            );
          });
        return queue;
      };
      const unsubscribe = cas.onChange(() => void update());
      const stopRefreshing = repeat(refreshMs, update, () => undefined);
      return async () => {
        unsubscribe();
        await stopRefreshing();
        await queue;
        await presence.leave().catch(() => undefined);
      };
    },
  };
}
