import { X509Certificate } from 'node:crypto';
import type { GatewayCertificateAuthorities } from '../core/ports/certificate-authorities.ts';
import type { CertificateRequester } from '../core/ports/certificate-requests.ts';
import type { Presence } from '../core/ports/presence.ts';
import type { Logger } from '../lib/logger.ts';

import { createServerRequest } from './server-certificate.ts';
import { repeat } from '../lib/repeat.ts';

/** How long a gateway waits for an api to sign its certificate, in milliseconds. */
const signingTimeoutMs = 60_000;
/** A gateway looks at least this often at the authorities, and tells which it knows. Milliseconds. */
const lookAgainMs = 5_000;
/** A certificate is renewed when less than this is left of it, in milliseconds. */
const renewBeforeMs = 30 * 24 * 3600 * 1000;

/** A gateway's certificate and whom it trusts, in step with the authorities. */
export interface RenewingTls {
  readonly tls: GatewayTls;
  /**
   * Keeps it in step from now on, and tells the apis which authorities are known here once they are in use.
   * @returns what ends it.
   */
  watch(replace: (tls: GatewayTls) => void): () => Promise<void>;
}

/** Has a certificate signed for a key that is made here and stays in this process. */
export async function obtainGatewayTls(deps: {
  requests: CertificateRequester;
  authorities: GatewayCertificateAuthorities;
  presence: Presence;
  logger: Logger;
}): Promise<RenewingTls> {
  const { requests, authorities, presence, logger } = deps;
  let { tls, authority, clients } = await obtain();

  async function obtain() {
    const { requestPem, privateKeyPem } = await createServerRequest('berth-gateway');
    const signed = await requests.request(requestPem, signingTimeoutMs);
    const known = await authorities.read();
    return {
      tls: {
        key: privateKeyPem,
        cert: signed.chain,
        clientCas: known.clients.map(({ certificatePem }) => certificatePem),
      },
      authority: signed.ca,
      clients: known.clients.map(({ id }) => id),
    };
  }

  /** True where something has changed. */
  async function refresh(): Promise<boolean> {
    const known = await authorities.read();
    const endsSoon = Date.parse(new X509Certificate(tls.cert).validTo) - Date.now() < renewBeforeMs;
    if (endsSoon || (known.server !== undefined && known.server !== authority)) {
      ({ tls, authority, clients } = await obtain());
      logger.info({ authority }, "The gateway's certificate was renewed");
      return true;
    }
    const ids = known.clients.map(({ id }) => id);
    if (ids.length === clients.length && ids.every((id) => clients.includes(id))) return false;
    tls = { ...tls, clientCas: known.clients.map(({ certificatePem }) => certificatePem) };
    clients = ids;
    return true;
  }

  return {
    tls,
    watch(replace) {
      let looking: Promise<void> = Promise.resolve();
      const look = () => {
        looking = looking
          .then(async () => {
            if (await refresh()) replace(tls);
            await presence.announce([authority, ...clients]);
          })
          .catch((error: unknown) => {
            logger.error(
              { err: error },
              "The gateway's certificate and authorities could not be brought in step; it is tried again",
            );
          });
        return looking;
      };
      const again = () => void look();
      const unsubscribe = authorities.onChange(again);
      const stopLooking = repeat(lookAgainMs, look, () => undefined);
      return async () => {
        unsubscribe();
        await stopLooking();
        await looking;
        await presence.leave().catch(() => undefined);
      };
    },
  };
}

/** The gateway's certificate, and the CAs of the clients that it trusts. */
export interface GatewayTls {
  /** The gateway's private key, PEM. */
  readonly key: string;
  /** Its certificate, PEM. */
  readonly cert: string;
  /** Certificates of the CAs that sign bindings' certificates, PEM each; at least one. */
  readonly clientCas: readonly string[];
}
