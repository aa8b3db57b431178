import { randomBytes, randomUUID } from 'node:crypto';
import type {
  CertificateAuthorityName,
  CertificateAuthorityRotation,
  CertificateAuthorityStore,
  NewCertificateAuthority,
  StoredCertificateAuthority,
} from '../core/ports/certificate-authorities.ts';
import type { SignedRequest } from '../core/ports/certificate-requests.ts';
import type { Presences } from '../core/ports/presence.ts';
import type { CertificateIssuer } from '../core/ports/certificate-issuer.ts';
import type { Vault } from '../core/ports/vault.ts';
import { refused } from '../core/errors.ts';
import type { Logger } from '../lib/logger.ts';
import { type CertificateAuthority, createCertificateAuthority, crossSign, longestChain } from './ca.ts';
import { endOf } from './leaf.ts';
import { issueClientCertificate } from './client-certificate.ts';
import { signServerRequest } from './server-certificate.ts';
import { repeat } from '../lib/repeat.ts';

/** Twice as long as a binding may be valid (core/catalog/load.ts): ten years go by before any rotation is needed. */
const validForDays = 20 * 365;
const dayMs = 24 * 3600 * 1000;
/** Gateways ask for a new certificate long before this ends. */
const serverCertificateDays = 90;
/** How long gateways are given to take a new authority up: longer than a dead one counts. Milliseconds. */
const takeUpMs = 25_000;
const lookAgainMs = 60_000;
/** A bind that began under the former authority has ended by then, in every api. Milliseconds. */
const defaultSettleMs = 3_600_000;

/** One that signs, with its key in the clear; the same object each time, since it is parsed once. */
interface Signing {
  readonly id: string;
  readonly authority: CertificateAuthority;
  readonly endsAt: Date;
}

/** The api's side of the authorities: it holds their keys, issues, and rotates. */
export interface CertificateAuthorities extends CertificateAuthorityRotation {
  readonly issuer: CertificateIssuer;
  /** A gateway's certificate with what leads from it to every authority that an app may trust, PEM. */
  signForGateway(requestPem: string): Promise<SignedRequest>;
  stop(): Promise<void>;
}

/**
 * Opens the authorities, and makes the first ones.
 * @param parts.hosts names and addresses in the gateways' certificates.
 */
export async function openCertificateAuthorities(parts: {
  store: CertificateAuthorityStore;
  presences: Pick<Presences, 'waitForAll'>;
  vault: Vault;
  hosts: readonly string[];
  logger: Logger;
  settleMs?: number;
}): Promise<CertificateAuthorities> {
  const { store, presences, vault, hosts, logger, settleMs = defaultSettleMs } = parts;
  const signing = new Map<string, Signing>();
  let trusted: readonly StoredCertificateAuthority[] = [];

  const row = (id: string) => `authorities/${id}/key`;
  const stateOf = (name: CertificateAuthorityName, state: StoredCertificateAuthority['state']) =>
    trusted.find((one) => one.name === name && one.state === state);

  async function make(
    name: CertificateAuthorityName,
    former?: StoredCertificateAuthority,
  ): Promise<NewCertificateAuthority> {
    const made = await createCertificateAuthority({
      commonName: `Berth ${name} authority ${randomBytes(4).toString('hex')}`,
      validForDays,
      // A client authority vouches for bindings only.
      chain: name === 'server' ? longestChain : 0,
    });
    const id = randomUUID();
    return {
      id,
      certificatePem: made.certificatePem,
      sealedKey: vault.seal(Buffer.from(made.privateKeyPem), row(id)),
      predecessor: former?.id,
      crossCertificatePem:
        name === 'server' && former !== undefined
          ? await crossSign(signer(former).authority, made.certificatePem)
          : undefined,
    };
  }

  /** The key stays known here after Postgres has forgotten it, for a bind that has begun with it. */
  function signer(stored: StoredCertificateAuthority): Signing {
    const known = signing.get(stored.id);
    if (known !== undefined) return known;
    if (stored.sealedKey === undefined) throw new Error(`the key of authority ${stored.id} is forgotten`);
    const privateKeyPem = vault.open(stored.sealedKey, row(stored.id)).toString('utf8');
    const opened = {
      id: stored.id,
      authority: { certificatePem: stored.certificatePem, privateKeyPem },
      endsAt: endOf(stored.certificatePem),
    };
    signing.set(stored.id, opened);
    return opened;
  }

  function current(name: CertificateAuthorityName): StoredCertificateAuthority {
    const stored = stateOf(name, 'current');
    if (stored === undefined) throw new Error(`there is no current ${name} authority`);
    return stored;
  }

  async function read(): Promise<void> {
    trusted = await store.trusted();
    for (const stored of trusted) if (stored.sealedKey !== undefined) signer(stored);
    for (const id of signing.keys()) if (!trusted.some((one) => one.id === id)) signing.delete(id);
  }

  /** From an authority to the oldest that an app may still trust instead. */
  function crossChain(from: StoredCertificateAuthority): string[] {
    const former = trusted.find(({ id }) => id === from.predecessor);
    if (former === undefined || from.crossCertificatePem === undefined) return [];
    return [from.crossCertificatePem, ...crossChain(former)];
  }

  const warn = (error: unknown) => {
    logger.error({ err: error }, 'The certificate authorities could not be read again; it is tried again');
  };
  for (const name of ['client', 'server'] as const) await store.ensure(name, () => make(name));
  await read();
  const again = () => void read().catch(warn);
  const unsubscribe = store.onChange(again);
  const stopLooking = repeat(
    lookAgainMs,
    async () => {
      await store.retire(settleMs);
      await read();
    },
    warn,
  );

  return {
    issuer: {
      async issue(request) {
        const client = signer(current('client'));
        const server = current('server');
        const issued = await issueClientCertificate(client.authority, {
          ...request,
          // None outlives its authority; the platform is told when it ends.
          notAfter: earlier(request.notAfter, client.endsAt),
        });
        return {
          ...issued,
          serverCaPem: server.certificatePem,
          caIds: { client: client.id, server: server.id },
        };
      },
    },

    async signForGateway(requestPem) {
      const stored = stateOf('server', 'next') ?? current('server');
      const server = signer(stored);
      const certificate = await signServerRequest(server.authority, requestPem, {
        hosts,
        notAfter: earlier(new Date(Date.now() + serverCertificateDays * dayMs), server.endsAt),
      });
      return { chain: [certificate, ...crossChain(stored)].join(''), ca: stored.id };
    },

    list: () => store.list(),

    async rotate(name) {
      await read();
      if (name === 'server' && crossChain(current('server')).length >= longestChain) {
        throw refused.conflict(
          `${longestChain} former server authorities are still trusted by live bindings: rotate those bindings first.`,
        );
      }
      if (stateOf(name, 'next') === undefined) {
        await store.insertNext(name, await make(name, current(name)));
        await read();
      }
      const next = stateOf(name, 'next');
      if (next === undefined) throw refused.conflict('Another rotation has just ended. Look at the list.');
      // Gateways trust it, or show a certificate of its, before any app does.
      if (!(await presences.waitForAll('gateway', next.id, takeUpMs))) {
        throw refused.conflict(
          'A gateway has not taken the new authority up: look at its log, and try again. The former one goes on signing.',
        );
      }
      await store.promote(name, next.id);
      await read();
      return store.list();
    },

    async stop() {
      unsubscribe();
      await stopLooking();
    },
  };
}

const earlier = (one: Date, other: Date) => (one < other ? one : other);
