import { createHash, generateKeyPairSync, type KeyObject, randomBytes, randomUUID } from 'node:crypto';

/** What makes a guest itself and no copy of its template. None of it is kept on the machine. */
export interface GuestIdentity {
  readonly hostname: string;
  /** machine-id(5): 32 hexadecimal digits; the same each time for one host. */
  readonly machineId: string;
  /** New at every start, as the kernel's own would be. */
  readonly bootId: string;
  /** Bytes for the kernel's random generator. */
  readonly entropy: Buffer;
  /** Id of the Docker engine, and the key that it is derived from. */
  readonly engineId: string;
  readonly engineKey: string;
}

/** Makes an identity for a host. Hostname and machine-id follow from its id, all else is new each time. */
export function createGuestIdentity(hostId: string): GuestIdentity {
  const hex = hostId.replaceAll('-', '');
  return {
    hostname: `berth-${hex.slice(0, 8)}`,
    machineId: createHash('sha256').update(`machine-id ${hostId}`).digest('hex').slice(0, 32),
    bootId: randomUUID(),
    entropy: randomBytes(256),
    ...createEngineKey(),
  };
}

/** A key for the engine in the form that dockerd 20.10 keeps, a JSON Web Key of the libtrust library; and its id. */
function createEngineKey(): Pick<GuestIdentity, 'engineId' | 'engineKey'> {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const engineId = engineIdOf(publicKey);
  const { crv, d, kty, x, y } = privateKey.export({ format: 'jwk' });
  return { engineId, engineKey: JSON.stringify({ crv, d, kid: engineId, kty, x, y }) };
}

/**
 * The id that dockerd 20.10 gives itself from its key (libtrust, `keyIDFromCryptoKey`): the first 240 bits of
 * the SHA-256 of the public key in DER, in base32, in groups of four.
 */
export function engineIdOf(publicKey: KeyObject): string {
  const digest = createHash('sha256')
    .update(publicKey.export({ type: 'spki', format: 'der' }))
    .digest();
  return (base32(digest.subarray(0, 30)).match(/.{4}/g) ?? []).join(':');
}

const base32Alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';

/** Base32 (RFC 4648, 6) of a whole number of five-byte groups: no padding is needed. */
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
