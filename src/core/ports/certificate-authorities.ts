/** `client` signs bindings' certificates, `server` the gateways' own. */
export type CertificateAuthorityName = 'client' | 'server';

/**
 * `next`: trusted, and signs for no app yet. `current`: signs. `retiring`: signs nothing more, and is trusted
 * while a binding needs it. `retired`: trusted by nobody.
 */
export type CertificateAuthorityState = 'next' | 'current' | 'retiring' | 'retired';

export interface CertificateAuthorityOverview {
  readonly id: string;
  readonly name: CertificateAuthorityName;
  readonly state: CertificateAuthorityState;
  readonly since: Date;
  /** When its certificate expires; no binding's certificate that it signs is valid for longer. */
  readonly expiresAt: Date;
  /** Live bindings that need it. */
  readonly liveBindings: number;
}

/** Replaces a CA by another one without breaking live bindings. */
export interface CertificateAuthorityRotation {
  list(): Promise<readonly CertificateAuthorityOverview[]>;
  /**
   * Returns once a new CA signs. The former one is trusted until its last binding has ended.
   * @throws RefusedError if a gateway does not use the new one in time; the next call continues from there.
   */
  rotate(name: CertificateAuthorityName): Promise<readonly CertificateAuthorityOverview[]>;
}

/** A CA as it is stored: its key is encrypted under the master key, and deleted once the CA retires. */
export interface StoredCertificateAuthority {
  readonly id: string;
  readonly name: CertificateAuthorityName;
  readonly state: CertificateAuthorityState;
  readonly predecessor: string | undefined;
  readonly certificatePem: string;
  /** A certificate for the same key, signed by the predecessor. */
  readonly crossCertificatePem: string | undefined;
  readonly sealedKey: Buffer | undefined;
}

export type NewCertificateAuthority = Omit<StoredCertificateAuthority, 'name' | 'state' | 'sealedKey'> & {
  readonly sealedKey: Buffer;
};

/** The CAs with their keys, for the api. */
export interface CertificateAuthorityStore {
  /** Every CA that is trusted, with the keys of those that sign. */
  trusted(): Promise<readonly StoredCertificateAuthority[]>;
  /** Stores the first CA of a name if there is none; exactly one is stored if several apis start together. */
  ensure(name: CertificateAuthorityName, make: () => Promise<NewCertificateAuthority>): Promise<void>;
  /** Stores the next CA of a name; changes nothing if another process has stored one at the same time. */
  insertNext(name: CertificateAuthorityName, made: NewCertificateAuthority): Promise<void>;
  /** From now on the next CA signs; the key of the former one is deleted. */
  promote(name: CertificateAuthorityName, nextId: string): Promise<void>;
  /**
   * Retires CAs that no live binding needs any more.
   * @param settleMs a bind that began before its CA began to retire has ended after this time; milliseconds.
   */
  retire(settleMs: number): Promise<void>;
  /** At most 100, the newest of each name first. */
  list(): Promise<readonly CertificateAuthorityOverview[]>;
  /** Calls back whenever the CAs may have changed. Returns what unsubscribes. */
  onChange(callback: () => void): () => void;
}

/** What a gateway may know of the CAs: never a key. */
export interface GatewayCertificateAuthorities {
  /**
   * The client CAs to trust, the id of the server CA that is to sign the gateway's certificate, and the names and addresses
   * that are to be in it.
   */
  read(): Promise<{
    readonly clients: readonly { readonly id: string; readonly certificatePem: string }[];
    readonly server: string | undefined;
    readonly names: readonly string[];
  }>;
  /** Calls back whenever the CAs or names may have changed. Returns what unsubscribes. */
  onChange(callback: () => void): () => void;
}
