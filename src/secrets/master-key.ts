import { createHash, randomBytes } from 'node:crypto';
import { CryptoError } from '../lib/crypto-error.ts';

const keyBytes = 32;
const keyIdBytes = 8;

/**
 * The key under which every secret in the database is encrypted. Kept apart from the text that it is read
 * from, so that neither can be taken for the other, and hidden from whatever prints it.
 */
export interface MasterKey {
  /** Tells which key something was encrypted with, and nothing else about the key. 8 bytes. */
  readonly id: Buffer;
  /** AES-256 key. Not enumerable: no log line and no inspection shows it. */
  readonly bytes: Buffer;
}

/** A new master key as text: 32 random bytes in base64. */
export function createMasterKeyText(): string {
  return randomBytes(keyBytes).toString('base64');
}

/**
 * Reads a master key: 32 bytes in base64 or hexadecimal, whitespace around it ignored.
 * @throws PkiError where the text is anything else. The text is not in the message.
 */
export function masterKeyFromText(text: string): MasterKey {
  const trimmed = text.trim();
  const bytes = decode(trimmed);
  if (bytes === undefined) {
    throw new CryptoError(
      `the master key must be ${keyBytes} bytes, as 44 characters of base64 or 64 hexadecimal digits (this is neither, ${trimmed.length} characters long): restore the file that it was first made in, or for a new installation make one with "openssl rand -base64 32"`,
    );
  }
  const id = createHash('sha256').update(bytes).digest().subarray(0, keyIdBytes);
  return Object.defineProperty({ id }, 'bytes', { value: bytes, enumerable: false }) as MasterKey;
}

/**
 * Reads the master keys of a file: one a line, empty lines and lines that begin with # ignored.
 * @throws PkiError where a line is none, or there is no line.
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
