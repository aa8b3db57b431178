import { createHash } from 'node:crypto';

/** A client of the OSB API: a Cloud Foundry or a Kubernetes, known by its credential and separate from all others. */
export interface Platform {
  /** UUID of the row. */
  readonly id: string;
  readonly name: string;
}

/** A valid username and password, and the platform to which they belong. */
export interface KnownCredential {
  /** {@link credentialDigest} of the pair. */
  readonly digest: Buffer;
  readonly platform: Platform;
}

/**
 * What is stored and compared instead of a username and password: SHA-256 over both. That is enough for passwords
 * that Berth generates (256 random bits); those of an operator's file are never stored, only compared.
 */
export function credentialDigest(username: string, password: string): Buffer {
  // A username can't contain a colon (RFC 7617), so different pairs have different texts.
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
   * @throws RefusedError if the name is taken or invalid.
   */
  create(name: string): Promise<PlatformCredential>;
  /**
   * Adds a second password; the first stays valid until {@link retirePassword}.
   * @throws RefusedError if there is no such platform, or it has two passwords already.
   */
  addPassword(name: string): Promise<PlatformCredential>;
  /**
   * Ends the older of two passwords.
   * @throws RefusedError if there is no such platform, or this is its only password.
   */
  retirePassword(name: string): Promise<void>;
}

/** Shown only once, when it is created: the broker stores a digest. */
export interface PlatformCredential {
  readonly username: string;
  readonly password: string;
}

export interface PlatformOverview {
  readonly name: string;
  readonly createdAt: Date;
  /** Passwords stored in Postgres; a password from a file is not counted. */
  readonly passwords: number;
  readonly instances: number;
}
