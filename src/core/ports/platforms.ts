import { createHash } from 'node:crypto';

/** Who calls the OSB API: a Cloud Foundry or a Kubernetes, each a world of its own, known by its credential. */
export interface Platform {
  /** UUID of the row. */
  readonly id: string;
  readonly name: string;
}

/** A username and password that is valid now, and whose it is. */
export interface KnownCredential {
  /** {@link credentialDigest} of the pair. */
  readonly digest: Buffer;
  readonly platform: Platform;
}

/**
 * What is compared and kept in place of a username and password: SHA-256 over both. Enough for passwords that
 * Berth makes itself (256 random bits); those of an operator's file are never stored, only compared.
 */
export function credentialDigest(username: string, password: string): Buffer {
  // A username holds no colon (RFC 7617), so no two pairs read the same.
  return createHash('sha256').update(`${username}:${password}`).digest();
}

/** The credentials that are valid now. */
export interface CredentialDirectory {
  known(): readonly KnownCredential[];
  stop(): void;
}

/** Platforms and the digests of their passwords. Every api process is notified of a change. */
export interface PlatformStore {
  list(): Promise<readonly PlatformOverview[]>;
  /** The platform of this name, inserted if it does not exist. */
  ensure(name: string): Promise<Platform>;
  /** Inserts a platform with its first password; false if the name is taken. */
  insert(name: string, digest: Buffer): Promise<boolean>;
  /** Adds a second password. */
  addPassword(name: string, digest: Buffer): Promise<'added' | 'not found' | 'two already'>;
  /** Deletes the older of two passwords. */
  deleteOlderPassword(name: string): Promise<'deleted' | 'not found' | 'only one'>;
}

/** What operators do with platforms. */
export interface Platforms {
  list(): Promise<readonly PlatformOverview[]>;
  /**
   * Records a platform with its first password.
   * @throws RefusedError where the name is taken, or is no name.
   */
  create(name: string): Promise<PlatformCredential>;
  /**
   * Adds a second password; the first stays valid until {@link retirePassword}.
   * @throws RefusedError where there is no such platform, or it has two passwords already.
   */
  addPassword(name: string): Promise<PlatformCredential>;
  /**
   * Ends the older of two passwords.
   * @throws RefusedError where there is no such platform, or it would be left without any.
   */
  retirePassword(name: string): Promise<void>;
}

/** Told once, when it is made: the broker keeps a digest only. */
export interface PlatformCredential {
  readonly username: string;
  readonly password: string;
}

export interface PlatformOverview {
  readonly name: string;
  readonly createdAt: Date;
  /** Passwords kept in Postgres; one out of a file comes on top. */
  readonly passwords: number;
  readonly instances: number;
}
