import { createECDH, createHash, randomBytes, randomUUID } from 'node:crypto';

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

/**
 * Without a KeyObject: exporting a new one as a JSON Web Key can block the thread forever, if the garbage collector runs
 * meanwhile (Node 20: the destructor of the job that made the key waits for the lock that the export has).
 */
function createEngineKey(): EngineKey {
  const ecdh = createECDH('prime256v1');
  // Uncompressed: 4, then x and y.
  const point = ecdh.generateKeys();
  const fingerprint = fingerprintOf(point);
  const [x, y] = [point.subarray(1, 33), point.subarray(33)].map((part) => part.toString('base64url'));
  const d = Buffer.concat([Buffer.alloc(32), ecdh.getPrivateKey()])
    .subarray(-32)
    .toString('base64url');
  return { fingerprint, key: JSON.stringify({ crv: 'P-256', d, kid: fingerprint, kty: 'EC', x, y }) };
}

/** What precedes a point of P-256 in the DER of its SubjectPublicKeyInfo (RFC 5480, section 2). */
const publicKeyHead = Buffer.from('3059301306072a8648ce3d020106082a8648ce3d030107034200', 'hex');

/**
 * Of an engine's key (libtrust, `keyIDFromCryptoKey`): the first 240 bits of the SHA-256 of the public key in DER, as
 * base32 in groups of four.
 * @param point the public key, an uncompressed point of P-256.
 */
export function fingerprintOf(point: Buffer): string {
  const digest = createHash('sha256').update(publicKeyHead).update(point).digest();
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
