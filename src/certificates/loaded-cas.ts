import { randomBytes, randomUUID } from 'node:crypto';
import type {
  CertificateAuthorityName,
  CertificateAuthorityStore,
  NewCertificateAuthority,
  StoredCertificateAuthority,
} from '../core/ports/certificate-authorities.ts';
import type { Vault } from '../core/ports/vault.ts';
import { expiryOf } from '../lib/certificate-expiry.ts';
import { type CertificateAuthority, createCertificateAuthority, crossSign, longestChain } from './ca.ts';

/** Twice the longest validity of a binding (core/catalog/catalog-file.ts): no rotation is needed in the first ten years. */
const validForDays = 20 * 365;

/** A CA that signs, with its private key in plain text. */
export interface SigningCa {
  readonly id: string;
  /** The same object each time: what is parsed from it is cached by identity. */
  readonly ca: CertificateAuthority;
  readonly expiresAt: Date;
}

/** This process's copy of the trusted CAs and of the keys of those that sign. */
export interface LoadedCas {
  /** Reads the CAs from the store again. */
  load(): Promise<void>;
  /** @throws Error if there is none. */
  current(name: CertificateAuthorityName): StoredCertificateAuthority;
  next(name: CertificateAuthorityName): StoredCertificateAuthority | undefined;
  /** @throws Error if its key is deleted and was never loaded here. @throws EnvelopeError if it can't be decrypted. */
  signer(stored: StoredCertificateAuthority): SigningCa;
  /** Cross certificates, PEM, from a server CA to the oldest one that an app may still trust instead. */
  crossChain(from: StoredCertificateAuthority): readonly string[];
  /** Creates a CA without storing it. A server CA with a predecessor is cross-signed by it. */
  create(
    name: CertificateAuthorityName,
    predecessor?: StoredCertificateAuthority,
  ): Promise<NewCertificateAuthority>;
}

export function createLoadedCas(store: CertificateAuthorityStore, vault: Vault): LoadedCas {
  const signers = new Map<string, SigningCa>();
  let trusted: readonly StoredCertificateAuthority[] = [];

  // Authenticated data of every sealed CA key (secrets/envelope.ts): never change it, or stored keys can't be opened.
  const row = (id: string) => `authorities/${id}/key`;
  const find = (name: CertificateAuthorityName, state: StoredCertificateAuthority['state']) =>
    trusted.find((stored) => stored.name === name && stored.state === state);

  // A key stays in memory after the store has deleted it, for a bind that has begun with it.
  function signer(stored: StoredCertificateAuthority): SigningCa {
    const known = signers.get(stored.id);
    if (known !== undefined) return known;
    if (stored.sealedKey === undefined) throw new Error(`the private key of the CA ${stored.id} is deleted`);
    const privateKeyPem = vault.open(stored.sealedKey, row(stored.id)).toString('utf8');
    const opened = {
      id: stored.id,
      ca: { certificatePem: stored.certificatePem, privateKeyPem },
      expiresAt: expiryOf(stored.certificatePem),
    };
    signers.set(stored.id, opened);
    return opened;
  }

  function crossChain(from: StoredCertificateAuthority): readonly string[] {
    const predecessor = trusted.find(({ id }) => id === from.predecessor);
    if (predecessor === undefined || from.crossCertificatePem === undefined) return [];
    return [from.crossCertificatePem, ...crossChain(predecessor)];
  }

  return {
    async load() {
      trusted = await store.trusted();
      for (const stored of trusted) if (stored.sealedKey !== undefined) signer(stored);
      for (const id of signers.keys()) if (!trusted.some((stored) => stored.id === id)) signers.delete(id);
    },

    current(name) {
      const stored = find(name, 'current');
      if (stored === undefined) throw new Error(`there is no current ${name} CA`);
      return stored;
    },

    next: (name) => find(name, 'next'),
    signer,
    crossChain,

    async create(name, predecessor) {
      const created = await createCertificateAuthority({
        commonName: `Berth ${name} authority ${randomBytes(4).toString('hex')}`,
        validForDays,
        // A client CA signs bindings' certificates only.
        chain: name === 'server' ? longestChain : 0,
      });
      const id = randomUUID();
      return {
        id,
        certificatePem: created.certificatePem,
        sealedKey: vault.seal(Buffer.from(created.privateKeyPem), row(id)),
        predecessor: predecessor?.id,
        crossCertificatePem:
          name === 'server' && predecessor !== undefined
            ? await crossSign(signer(predecessor).ca, created.certificatePem)
            : undefined,
      };
    },
  };
}
