import { createHash, createPrivateKey, generateKeyPair, type KeyObject, sign } from 'node:crypto';
import { promisify } from 'node:util';
import { CryptoError } from '../lib/crypto-error.ts';
import type { CertificateAuthority } from './ca.ts';
import { backdated, createSerial } from './certificate-fields.ts';
import { createKeyPair } from './keys.ts';
import { signLeaf } from './leaf.ts';
import * as x509 from './x509.ts';

/**
 * Issues client certificates at hundreds a second. They differ only in fields of fixed length: the X.509 library
 * creates one as the template, and each further certificate is a copy with other bytes in these fields and its own
 * signature.
 */
export interface CertificateTemplate {
  /** @throws CryptoError if the name has another length than the template's, or the expiry is after 2049. */
  stamp(request: { commonName: string; notAfter: Date }): Promise<StampedCertificate>;
}

export interface StampedCertificate {
  readonly serial: string;
  /** DER. */
  readonly certificate: Buffer;
  readonly privateKeyPem: string;
}

const generateKeys = promisify(generateKeyPair);

/**
 * UTCTime, which RFC 5280, 4.1.2.5.1, requires for dates until the end of 2049.
 * @throws CryptoError for later dates, which have another form.
 */
function utcTime(moment: Date): Buffer {
  if (moment.getUTCFullYear() > 2049) {
    throw new CryptoError(`${moment.toISOString()} is after 2049: choose an earlier expiry`);
  }
  return Buffer.from(`${moment.toISOString().slice(2, 19).replace(/[-T:]/g, '')}Z`);
}

/** @param nameLength length in bytes of the common names of all certificates. */
export async function createCertificateTemplate(
  ca: CertificateAuthority,
  nameLength: number,
): Promise<CertificateTemplate> {
  const keys = await createKeyPair();
  const serial = createSerial();
  const commonName = '?'.repeat(nameLength);
  // Soon, since the CA may expire soon. Not equal to notBefore: the two fields could not be told apart.
  const notAfter = new Date(Date.now() + 60_000);
  const model = await signLeaf(ca, {
    commonName,
    serial,
    notAfter,
    publicKey: keys.publicKey,
    usage: x509.ExtendedKeyUsage.clientAuth,
    alternativeNames: [],
  });
  const { tbs, algorithm } = splitCertificate(Buffer.from(model.rawData));
  const publicKey = Buffer.from(model.publicKey.rawData);
  const fields = {
    serial: findField(tbs, Buffer.from(serial, 'hex')),
    name: findField(tbs, Buffer.from(commonName)),
    notBefore: findField(tbs, utcTime(model.notBefore)),
    notAfter: findField(tbs, utcTime(model.notAfter)),
    publicKey: findField(tbs, publicKey),
    keyIdentifier: findField(tbs, keyIdentifierOf(publicKey)),
  };
  const signingKey = createPrivateKey(ca.privateKeyPem);

  return {
    async stamp(request) {
      const pair = await generateKeys('ec', {
        namedCurve: 'P-256',
        publicKeyEncoding: { type: 'spki', format: 'der' },
        privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
      });
      const newSerial = createSerial();
      const body = Buffer.from(tbs);
      writeField(body, fields.serial, Buffer.from(newSerial, 'hex'));
      writeField(body, fields.name, Buffer.from(request.commonName));
      writeField(body, fields.notBefore, utcTime(backdated()));
      writeField(body, fields.notAfter, utcTime(request.notAfter));
      writeField(body, fields.publicKey, pair.publicKey);
      writeField(body, fields.keyIdentifier, keyIdentifierOf(pair.publicKey));
      return {
        serial: newSerial,
        certificate: signCertificate(body, algorithm, signingKey),
        privateKeyPem: pair.privateKey,
      };
    },
  };
}

/** Bytes of the certificate that differ in each copy. */
interface Field {
  readonly offset: number;
  readonly length: number;
}

/** @throws CryptoError unless the bytes occur exactly once: a new library version may write another form. */
function findField(tbs: Buffer, bytes: Buffer): Field {
  const offset = tbs.indexOf(bytes);
  if (offset < 0 || tbs.indexOf(bytes, offset + 1) >= 0) {
    throw new CryptoError('the certificate does not have the form of a template');
  }
  return { offset, length: bytes.length };
}

/** @throws CryptoError if the bytes have another length than the field. */
function writeField(body: Buffer, { offset, length }: Field, bytes: Buffer): void {
  if (bytes.length !== length) {
    throw new CryptoError(`${bytes.length} bytes do not fit into a field of ${length}`);
  }
  bytes.copy(body, offset);
}

/** SHA-1 of the public key's bits, the end of its SubjectPublicKeyInfo (RFC 5280, 4.2.1.2, method 1). */
function keyIdentifierOf(publicKey: Buffer): Buffer {
  return createHash('sha1').update(publicKey.subarray(-65)).digest();
}

/** The signed part of a certificate (tbsCertificate) and its signatureAlgorithm, in DER (X.690, 8.1). */
function splitCertificate(certificate: Buffer): { tbs: Buffer; algorithm: Buffer } {
  const outer = elementAt(certificate, 0);
  const tbs = elementAt(certificate, outer.start);
  const algorithm = elementAt(certificate, tbs.end);
  return {
    tbs: certificate.subarray(outer.start, tbs.end),
    algorithm: certificate.subarray(tbs.end, algorithm.end),
  };
}

/** Start and end of the content of the DER element at `offset`. */
function elementAt(der: Buffer, offset: number): { start: number; end: number } {
  const first = der.readUInt8(offset + 1);
  if (first < 0x80) return { start: offset + 2, end: offset + 2 + first };
  const bytes = first & 0x7f;
  const start = offset + 2 + bytes;
  return { start, end: start + der.readUIntBE(offset + 2, bytes) };
}

function signCertificate(tbs: Buffer, algorithm: Buffer, key: KeyObject): Buffer {
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
