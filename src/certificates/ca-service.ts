import type {
  CertificateAuthorityRotation,
  CertificateAuthorityStore,
} from '../core/ports/certificate-authorities.ts';
import type { CertificateIssuer } from '../core/ports/certificate-issuer.ts';
import type { SignedRequest } from '../core/ports/certificate-requests.ts';
import type { GatewayNames } from '../core/ports/gateway-names.ts';
import type { Presences } from '../core/ports/presence.ts';
import type { Vault } from '../core/ports/vault.ts';
import type { Logger } from '../lib/logger.ts';
import { repeat } from '../lib/repeat.ts';
import { createGatewaySigner, createIssuer } from './ca-issuing.ts';
import { createCaRotation } from './ca-rotation.ts';
import { createLoadedCas } from './loaded-cas.ts';

/** Between two reads of the CAs without a notification. */
const reloadMs = 60_000;
/** After this time every bind that began under the former CA has ended, in every api. Milliseconds. */
const defaultSettleMs = 3_600_000;

/** The api's side of the CAs: it has their private keys, issues certificates and rotates CAs. */
export interface CertificateAuthorities extends CertificateAuthorityRotation {
  readonly issuer: CertificateIssuer;
  /** Signs a gateway's PKCS#10 request (PEM). */
  signForGateway(requestPem: string): Promise<SignedRequest>;
  stop(): Promise<void>;
}

/** Loads the CAs, creates the first ones, and keeps them up to date until `stop`. */
export async function openCertificateAuthorities(deps: {
  store: CertificateAuthorityStore;
  presences: Pick<Presences, 'waitForAll'>;
  vault: Vault;
  gatewayNames: Pick<GatewayNames, 'list'>;
  logger: Logger;
  settleMs?: number;
}): Promise<CertificateAuthorities> {
  const { store, presences, vault, gatewayNames, logger, settleMs = defaultSettleMs } = deps;
  const cas = createLoadedCas(store, vault);
  for (const name of ['client', 'server'] as const) await store.ensure(name, () => cas.create(name));
  await cas.load();

  const warn = (error: unknown) => {
    logger.error({ err: error }, `Reading the CAs failed; retrying within ${reloadMs / 1000} s`);
  };
  const unsubscribe = store.onChange(() => void cas.load().catch(warn));
  const stopReloading = repeat(
    reloadMs,
    async () => {
      await store.retire(settleMs);
      await cas.load();
    },
    warn,
  );

  return {
    ...createCaRotation({ store, cas, presences }),
    issuer: createIssuer(cas),
    signForGateway: createGatewaySigner(cas, gatewayNames),
    async stop() {
      unsubscribe();
      await stopReloading();
    },
  };
}
