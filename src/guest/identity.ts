import { createHash, generateKeyPairSync, type KeyObject, randomBytes, randomUUID } from 'node:crypto';

/** What distinguishes a guest from its template. None of it is stored on the node. */
export interface GuestIdentity {
  readonly hostname: string;
  /** machine-id(5): 32 hexadecimal digits, always the same for one host. */
  readonly machineId: string;
  /** New at every start, like the kernel's. */
  readonly bootId: string;
  /** Seed for the kernel's random generator. */
  readonly entropy: Buffer;
  /** Id of the Docker engine, a UUID. */
  readonly engineId: string;
  /** For Docker 20.10, whose id is the fingerprint of a key. */
  readonly engineKey: EngineKey;
}

interface EngineKey {
  readonly fingerprint: string;
  /** As dockerd stores it: a JSON Web Key of the libtrust library. */
  readonly key: string;
}

/** Makes an identity for a host. Hostname and machine-id derive from its id; everything else is new each time. */
export function createGuestIdentity(hostId: string): GuestIdentity {
  const hex = hostId.replaceAll('-', '');
  return {
    hostname: `berth-${hex.slice(0, 8)}`,
    machineId: createHash('sha256').update(`machine-id ${hostId}`).digest('hex').slice(0, 32),
    bootId: randomUUID(),
    entropy: randomBytes(256),
    engineId: randomUUID(),
    engineKey: createEngineKey(),
  };
}

function createEngineKey(): EngineKey {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const fingerprint = fingerprintOf(publicKey);
  const { crv, d, kty, x, y } = privateKey.export({ format: 'jwk' });
  return { fingerprint, key: JSON.stringify({ crv, d, kid: fingerprint, kty, x, y }) };
}

/**
 * Of an engine's key (libtrust, `keyIDFromCryptoKey`): the first 240 bits of the SHA-256 of the public key in DER, as
 * base32 in groups of four.
 */
export function fingerprintOf(publicKey: KeyObject): string {
  const digest = createHash('sha256')
    .update(publicKey.export({ type: 'spki', format: 'der' }))
    .digest();
  return (base32(digest.subarray(0, 30)).match(/.{4}/g) ?? []).join(':');
}

const base32Alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';

/** Base32 (RFC 4648, section 6) of a multiple of five bytes, so without padding. */
function base32(bytes: Buffer): string {
  let text = '';
  for (let offset = 0; offset < bytes.length; offset += 5) {
    let group = BigInt(`0x${bytes.subarray(offset, offset + 5).toString('hex')}`);
    let letters = '';
    for (let index = 0; index < 8; index += 1) {
      letters = (base32Alphabet[Number(group & 31n)] ?? '') + letters;
      group >>= 5n;
    }
    text += letters;
  }
  return text;
}
