import { createPrivateKey, createPublicKey, generatePrimeSync, sign } from 'node:crypto';

/** A chain that costs its verifier much more than its sender. */
export interface CostlyChain {
  /** The leaf first. */
  readonly certificatePem: string;
  readonly privateKeyPem: string;
}

/**
 * A chain of certificates that all have one RSA-3072 key, whose public exponent is as long as the modulus: each
 * verification costs a hundred times that of an ordinary key, and OpenSSL refuses such an exponent only for longer keys.
 */
export function createCostlyChain(length: number): CostlyChain {
  const [p, q] = [prime(), prime()];
  const n = p * q;
  const phi = (p - 1n) * (q - 1n);
  const d = 65_537n;
  const e = inverse(d, phi);
  const key = createPrivateKey({
    format: 'jwk',
    key: {
      kty: 'RSA',
      ...{ n: base64(n), e: base64(e), d: base64(d), p: base64(p), q: base64(q) },
      ...{ dp: base64(d % (p - 1n)), dq: base64(d % (q - 1n)), qi: base64(inverse(q, p)) },
    },
  });
  const publicKey = createPublicKey(key).export({ type: 'spki', format: 'der' });
  const certificates = Array.from({ length }, (_, index) => {
    const content = der(
      0x30,
      der(0x02, Buffer.from([index + 1])),
      sha256WithRsa,
      name(index + 1),
      validity,
      name(index),
      publicKey,
    );
    return der(0x30, content, sha256WithRsa, der(0x03, Buffer.from([0]), sign('sha256', content, key)));
  });
  return {
    certificatePem: certificates.map(pem).join(''),
    privateKeyPem: key.export({ type: 'pkcs8', format: 'pem' }) as string,
  };
}

/** An element in DER (X.690, 8.1). */
function der(tag: number, ...contents: Buffer[]): Buffer {
  const content = Buffer.concat(contents);
  const { length } = content;
  const head =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...head]), content]);
}

const sha256WithRsa = der(0x30, der(0x06, Buffer.from('2a864886f70d01010b', 'hex')), der(0x05));
const validity = der(0x30, der(0x17, Buffer.from('250101000000Z')), der(0x17, Buffer.from('491231235959Z')));
const commonName = Buffer.from('550403', 'hex');
const name = (number: number) =>
  der(0x30, der(0x31, der(0x30, der(0x06, commonName), der(0x0c, Buffer.from(`link ${number}`)))));

const pem = (bytes: Buffer) =>
  `-----BEGIN CERTIFICATE-----\n${(bytes.toString('base64').match(/.{1,64}/g) ?? []).join('\n')}\n-----END CERTIFICATE-----\n`;

/** Half of a modulus of 3,072 bits; `d` above has an inverse. */
function prime(): bigint {
  for (;;) {
    const candidate = generatePrimeSync(1536, { bigint: true });
    if (candidate % 65_537n !== 1n && candidate >> 1535n === 1n) return candidate;
  }
}

function inverse(value: bigint, modulus: bigint): bigint {
  let [low, high] = [value % modulus, modulus];
  let [x, y] = [1n, 0n];
  while (low !== 0n) {
    const quotient = high / low;
    [high, low] = [low, high - quotient * low];
    [y, x] = [x, y - quotient * x];
  }
  return ((y % modulus) + modulus) % modulus;
}

function base64(value: bigint): string {
  const hex = value.toString(16);
  return Buffer.from(hex.padStart(hex.length + (hex.length % 2), '0'), 'hex').toString('base64url');
}
