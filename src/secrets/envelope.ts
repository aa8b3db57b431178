import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import type { MasterKey } from './master-key.ts';

/**
 * Envelope encryption: each secret is encrypted with its own random data key, and the data key is wrapped by the
 * master key. Rotating the master key rewraps the data keys and leaves the encrypted secrets as they are.
 *
 * AES-256-GCM (NIST SP 800-38D) both times, with random 96-bit nonces. A data key is used once; the master
 * key wraps far fewer than the 2^32 keys that random nonces allow. Layout, in bytes:
 *
 *     version 1 | id of the master key 8 | nonce 12 | tag 16 | wrapped data key 32 | nonce 12 | tag 16 | ciphertext
 *
 * The wrapping authenticates version, id and associated data, and the ciphertext authenticates the associated data:
 * a secret can't be moved to another row, nor a data key to another secret. The associated data names the row; it must
 * stay the same for all existing rows, also if a table is renamed (`authorities/<id>/key` of CA keys, for example).
 */
const version = 1;
const lengths = { id: 8, nonce: 12, key: 32, tag: 16 } as const;
const header = 1 + lengths.id;
const wrapping = lengths.nonce + lengths.key + lengths.tag;
const overhead = header + wrapping + lengths.nonce + lengths.tag;

/** A sealed value can't be opened. */
export class EnvelopeError extends Error {
  override readonly name = 'EnvelopeError';

  constructor(
    /**
     * `wrong-master-key`: it was sealed with another master key. `damaged`: it was changed or truncated, or belongs to
     * another row. `unknown-version`: a newer version of Berth sealed it.
     */
    readonly reason: 'wrong-master-key' | 'damaged' | 'unknown-version',
    message: string,
  ) {
    super(message);
  }
}

/**
 * Encrypts a secret.
 * @param associatedData row and column, such as `bindings/<id>/credentials`: it can't be opened in any other.
 */
export function seal(masterKey: MasterKey, plaintext: Buffer, associatedData: string): Buffer {
  const dataKey = randomBytes(lengths.key);
  const head = Buffer.concat([Buffer.of(version), masterKey.id]);
  return Buffer.concat([
    head,
    wrap(masterKey, head, dataKey, associatedData),
    encrypt(dataKey, plaintext, Buffer.from(associatedData)),
  ]);
}

/**
 * Decrypts a secret.
 * @throws EnvelopeError with the reason.
 */
export function open(masterKey: MasterKey, sealed: Buffer, associatedData: string): Buffer {
  const { dataKey, body } = unwrap(masterKey, sealed, associatedData);
  return decrypt(dataKey, body, Buffer.from(associatedData), associatedData);
}

/**
 * Rewraps the data key of a secret for another master key, without decrypting the secret.
 * @throws EnvelopeError if it was not sealed with `from`, or is damaged.
 */
export function rewrap(from: MasterKey, to: MasterKey, sealed: Buffer, associatedData: string): Buffer {
  const { dataKey, body } = unwrap(from, sealed, associatedData);
  const head = Buffer.concat([Buffer.of(version), to.id]);
  return Buffer.concat([head, wrap(to, head, dataKey, associatedData), body]);
}

/** Whether the header says that it was sealed with this master key. */
export function isSealedWith(masterKey: MasterKey, sealed: Buffer): boolean {
  return sealed.length >= overhead && sealed.subarray(1, header).equals(masterKey.id);
}

/** Id of the master key in the header, in hexadecimal. */
export function sealedWith(sealed: Buffer): string {
  return sealed.subarray(1, header).toString('hex');
}

function wrap(masterKey: MasterKey, head: Buffer, dataKey: Buffer, associatedData: string): Buffer {
  return encrypt(masterKey.bytes, dataKey, Buffer.concat([head, Buffer.from(associatedData)]));
}

function unwrap(masterKey: MasterKey, sealed: Buffer, associatedData: string) {
  if (sealed.length < overhead) {
    throw new EnvelopeError('damaged', `${associatedData} is damaged: ${sealed.length} bytes are too few`);
  }
  if (sealed[0] !== version) {
    throw new EnvelopeError(
      'unknown-version',
      `${associatedData} was sealed in a format (version ${sealed[0] ?? 0}) that this version of Berth does not know: run the version that wrote it, or a newer one`,
    );
  }
  if (!isSealedWith(masterKey, sealed)) {
    const [had, have] = [sealed.subarray(1, header).toString('hex'), masterKey.id.toString('hex')];
    throw new EnvelopeError(
      'wrong-master-key',
      `${associatedData} was sealed with the master key ${had}, but the master key in use is ${have}: start with the one that it was sealed with`,
    );
  }
  const head = sealed.subarray(0, header);
  const wrapped = sealed.subarray(header, header + wrapping);
  const bound = Buffer.concat([head, Buffer.from(associatedData)]);
  return {
    dataKey: decrypt(masterKey.bytes, wrapped, bound, associatedData),
    body: sealed.subarray(header + wrapping),
  };
}

/** Nonce, tag, ciphertext. */
function encrypt(key: Buffer, plaintext: Buffer, authenticated: Buffer): Buffer {
  const nonce = randomBytes(lengths.nonce);
  const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: lengths.tag });
  cipher.setAAD(authenticated);
  const ciphertext = Buffer.concat([cipher.update(plaintext), cipher.final()]);
  return Buffer.concat([nonce, cipher.getAuthTag(), ciphertext]);
}

function decrypt(key: Buffer, encrypted: Buffer, authenticated: Buffer, name: string): Buffer {
  const nonce = encrypted.subarray(0, lengths.nonce);
  const tag = encrypted.subarray(lengths.nonce, lengths.nonce + lengths.tag);
  const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: lengths.tag });
  decipher.setAAD(authenticated);
  decipher.setAuthTag(tag);
  try {
    return Buffer.concat([
      decipher.update(encrypted.subarray(lengths.nonce + lengths.tag)),
      decipher.final(),
    ]);
  } catch {
    throw new EnvelopeError(
      'damaged',
      `${name} is damaged, or was copied there from another row: restore it from a backup`,
    );
  }
}
