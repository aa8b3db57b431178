import { createHash, createPrivateKey, generateKeyPair, type KeyObject, sign } from 'node:crypto';
import { promisify } from 'node:util';
import type { CertificateAuthority } from './ca.ts';
import { backdated, createSerial } from './certificate-fields.ts';
import { signLeaf } from './leaf.ts';
import { CryptoError } from '../lib/crypto-error.ts';
import { createKeyPair } from './keys.ts';
import * as x509 from './x509.ts';

/**
 * Client certificates by the hundred a second. They differ in five places of fixed length only: the library
 * makes one as a mould, and the others are that one with other bytes in these places, signed anew.
 */
export interface CertificateTemplate {
  stamp(request: { commonName: string; notAfter: Date }): Promise<StampedCertificate>;
}

export interface StampedCertificate {
  readonly serial: string;
  readonly certificate: Buffer;
  readonly privateKeyPem: string;
}

const makeKeyPair = promisify(generateKeyPair);

/**
 * UTCTime, which RFC 5280, 4.1.2.5.1, wants until the end of 2049.
 * @throws PkiError for later moments, which have another form.
 */
function utcTime(moment: Date): Buffer {
  if (moment.getUTCFullYear() > 2049) {
    throw new CryptoError(
      `${moment.toISOString()} is after 2049: certificates that last so long are not made`,
    );
  }
  return Buffer.from(`${moment.toISOString().slice(2, 19).replace(/[-T:]/g, '')}Z`);
}

/** @param nameLength bytes of the common names that will be asked for. */
export async function createCertificateTemplate(
  authority: CertificateAuthority,
  nameLength: number,
): Promise<CertificateTemplate> {
  const keys = await createKeyPair();
  const serial = createSerial();
  const commonName = '?'.repeat(nameLength);
  // Soon, since the authority may end soon as well; and not when it begins, or the two places could not be told apart.
  const notAfter = new Date(Date.now() + 60_000);
  const model = await signLeaf(authority, {
    commonName,
    serial,
    notAfter,
    publicKey: keys.publicKey,
    usage: x509.ExtendedKeyUsage.clientAuth,
    alternativeNames: [],
  });
  const { tbs, algorithm } = take(Buffer.from(model.rawData));
  const publicKey = Buffer.from(model.publicKey.rawData);
  const places = {
    serial: placeOf(tbs, Buffer.from(serial, 'hex')),
    name: placeOf(tbs, Buffer.from(commonName)),
    notBefore: placeOf(tbs, utcTime(model.notBefore)),
    notAfter: placeOf(tbs, utcTime(model.notAfter)),
    publicKey: placeOf(tbs, publicKey),
    keyIdentifier: placeOf(tbs, keyIdentifierOf(publicKey)),
  };
  const signer = createPrivateKey(authority.privateKeyPem);

  return {
    async stamp(request) {
      const made = await makeKeyPair('ec', {
        namedCurve: 'P-256',
        publicKeyEncoding: { type: 'spki', format: 'der' },
        privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
      });
      const own = createSerial();
      const body = Buffer.from(tbs);
      put(body, places.serial, Buffer.from(own, 'hex'));
      put(body, places.name, Buffer.from(request.commonName));
      put(body, places.notBefore, utcTime(backdated()));
      put(body, places.notAfter, utcTime(request.notAfter));
      put(body, places.publicKey, made.publicKey);
      put(body, places.keyIdentifier, keyIdentifierOf(made.publicKey));
      return { serial: own, certificate: wrap(body, algorithm, signer), privateKeyPem: made.privateKey };
    },
  };
}

interface Place {
  readonly offset: number;
  readonly length: number;
}

/** @throws PkiError where the bytes are not in there exactly once: the library has changed what it writes. */
function placeOf(tbs: Buffer, bytes: Buffer): Place {
  const offset = tbs.indexOf(bytes);
  if (offset < 0 || tbs.indexOf(bytes, offset + 1) >= 0) {
    throw new CryptoError('a certificate does not have the form that others can be made after');
  }
  return { offset, length: bytes.length };
}

/** @throws PkiError where something does not fit its place. */
function put(body: Buffer, { offset, length }: Place, bytes: Buffer): void {
  if (bytes.length !== length) throw new CryptoError(`${bytes.length} bytes do not fit a place of ${length}`);
  bytes.copy(body, offset);
}

/** SHA-1 over the key's bits, which end its SubjectPublicKeyInfo (RFC 5280, 4.2.1.2, method 1). */
function keyIdentifierOf(publicKey: Buffer): Buffer {
  return createHash('sha1').update(publicKey.subarray(-65)).digest();
}

/** The signed part of a certificate and the name of its signature's algorithm, in DER (X.690, 8.1). */
function take(certificate: Buffer): { tbs: Buffer; algorithm: Buffer } {
  const outer = elementAt(certificate, 0);
  const tbs = elementAt(certificate, outer.start);
  const algorithm = elementAt(certificate, tbs.end);
  return {
    tbs: certificate.subarray(outer.start, tbs.end),
    algorithm: certificate.subarray(tbs.end, algorithm.end),
  };
}

/** Where the content of an element begins and ends. */
function elementAt(der: Buffer, offset: number): { start: number; end: number } {
  const first = der.readUInt8(offset + 1);
  if (first < 0x80) return { start: offset + 2, end: offset + 2 + first };
  const bytes = first & 0x7f;
  const start = offset + 2 + bytes;
  return { start, end: start + der.readUIntBE(offset + 2, bytes) };
}

function wrap(tbs: Buffer, algorithm: Buffer, key: KeyObject): Buffer {
  const signature = sign('sha256', tbs, key);
  const bits = element(0x03, Buffer.concat([Buffer.from([0]), signature]));
  return element(0x30, Buffer.concat([tbs, algorithm, bits]));
}

function element(tag: number, content: Buffer): Buffer {
  const { length } = content;
  const header =
    length < 0x80
      ? [tag, length]
      : length < 0x100
        ? [tag, 0x81, length]
        : [tag, 0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from(header), content]);
}

/** A certificate in DER as PEM, with the newline at its end that OpenSSL writes. */
export function derToPem(certificate: Buffer): string {
  return `${x509.PemConverter.encode(certificate, x509.PemConverter.CertificateTag).trim()}\n`;
}
