import { createHash, randomBytes } from 'node:crypto';
import { CryptoError } from '../lib/crypto-error.ts';

const keyBytes = 32;
const keyIdBytes = 8;

/**
 * The key that wraps the data keys of all secrets in the database. A type that can't be confused with the text it was
 * read from, and that logs and inspection do not show.
 */
export interface MasterKey {
  /** Identifies the key and reveals nothing else about it. 8 bytes. */
  readonly id: Buffer;
  /** AES-256 key. Not enumerable, so that no log line and no inspection shows it. */
  readonly bytes: Buffer;
}

/** A new master key as text: 32 random bytes in base64. */
export function createMasterKeyText(): string {
  return randomBytes(keyBytes).toString('base64');
}

/**
 * Reads a master key: 32 bytes in base64 or hexadecimal; surrounding whitespace is ignored.
 * @throws CryptoError if the text is anything else. The text is not in the message.
 */
export function masterKeyFromText(text: string): MasterKey {
  const trimmed = text.trim();
  const bytes = decode(trimmed);
  if (bytes === undefined) {
    throw new CryptoError(
      `the master key must be ${keyBytes} bytes, as 44 characters of base64 or 64 hexadecimal digits (this is neither, ${trimmed.length} characters long): restore the original file or, for a new installation, create a key with "openssl rand -base64 32"`,
    );
  }
  const id = createHash('sha256').update(bytes).digest().subarray(0, keyIdBytes);
  return Object.defineProperty({ id }, 'bytes', { value: bytes, enumerable: false }) as MasterKey;
}

/**
 * Reads the master keys of a file, one per line; empty lines and lines that begin with # are ignored.
 * @throws CryptoError if a line is not a master key, or there is no line.
 */
export function masterKeysFromText(text: string): readonly [MasterKey, ...MasterKey[]] {
  const lines = text.split('\n').map((line) => line.trim());
  const [first = '', ...more] = lines.filter((line) => line !== '' && !line.startsWith('#'));
  return [masterKeyFromText(first), ...more.map(masterKeyFromText)];
}

function decode(text: string): Buffer | undefined {
  if (/^[0-9a-fA-F]{64}$/.test(text)) return Buffer.from(text, 'hex');
  if (!/^[A-Za-z0-9+/]{43}=?$/.test(text)) return undefined;
  const bytes = Buffer.from(text, 'base64');
  return bytes.length === keyBytes ? bytes : undefined;
}
