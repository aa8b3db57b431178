import { randomBytes, webcrypto } from 'node:crypto';
import type { Authority } from './ca.ts';
import { CryptoError } from '../lib/crypto-error.ts';
import { signingAlgorithm, signingKeyFromPem } from './keys.ts';
import * as x509 from './x509.ts';

/** Certificates are valid from a little before they are made, for clients whose clock is slow. Milliseconds. */
const clockSkewMs = 5 * 60_000;

/** From when a certificate made now is valid. */
export const backdated = () => new Date(Date.now() - clockSkewMs);

/** Bytes of a serial: RFC 5280, 4.1.2.2, allows up to 20, of which the first bit must be 0. */
const serialBytes = 17;

/**
 * A new serial: lower-case hexadecimal, no leading zeros, positive, with at least 128 random bits (and so
 * never used twice).
 */
export function createSerial(): string {
  const bytes = randomBytes(serialBytes);
  // The first byte is 0x40 to 0x7f: positive in DER, never zero, and the other 16 are random in full.
  bytes[0] = 0x40 | ((bytes[0] ?? 0) & 0x3f);
  return bytes.toString('hex');
}

/**
 * A serial as Berth writes it, from however a library prints it.
 * @throws PkiError where it is not hexadecimal, or zero.
 */
export function normaliseSerial(text: string): string {
  const serial = text.toLowerCase().replace(/^0+/, '');
  if (!/^[0-9a-f]{1,40}$/.test(serial)) throw new CryptoError('serial is not a positive hexadecimal number');
  return serial;
}

/**
 * A subject of nothing but a common name, however many commas and equal signs are in that.
 * @throws PkiError where the name is empty or longer than 64 characters (RFC 5280, ub-common-name).
 */
export function subjectOf(commonName: string): x509.Name {
  if (commonName.length === 0 || commonName.length > 64) {
    throw new CryptoError(`commonName has ${commonName.length} characters: it must have 1 to 64`);
  }
  return new x509.Name([{ CN: [{ utf8String: commonName }] }]);
}

const noAuthority = new x509.BasicConstraintsExtension(false, undefined, true);
const signsHandshakes = new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true);

/** What an authority puts its name to. */
export interface LeafRequest {
  readonly commonName: string;
  readonly serial: string;
  readonly notAfter: Date;
  readonly publicKey: x509.PublicKey | webcrypto.CryptoKey;
  /** The one use that the certificate is good for. */
  readonly usage: x509.ExtendedKeyUsage;
  readonly alternativeNames: x509.JsonGeneralNames;
}

/**
 * Signs a certificate that is good for one use and signs nothing itself.
 * @throws PkiError where it would be expired, or valid for longer than its authority.
 */
export async function signLeaf(authority: Authority, leaf: LeafRequest): Promise<x509.X509Certificate> {
  const signer = await signerOf(authority);
  const notAfter = await possibleEnd(authority, leaf.notAfter);
  return x509.X509CertificateGenerator.create(
    {
      serialNumber: leaf.serial,
      subject: subjectOf(leaf.commonName),
      issuer: signer.name,
      notBefore: backdated(),
      notAfter,
      publicKey: leaf.publicKey,
      signingKey: signer.key,
      signingAlgorithm,
      extensions: [
        noAuthority,
        signsHandshakes,
        new x509.ExtendedKeyUsageExtension([leaf.usage]),
        await x509.SubjectKeyIdentifierExtension.create(leaf.publicKey, false, webcrypto),
        signer.keyIdentifier,
        ...(leaf.alternativeNames.length > 0
          ? [new x509.SubjectAlternativeNameExtension(leaf.alternativeNames)]
          : []),
      ],
    },
    webcrypto,
  );
}

/**
 * When a certificate of this authority ends that was asked for until `notAfter`.
 * @throws PkiError where it would be expired, or valid for longer than its authority.
 */
export async function possibleEnd(authority: Authority, notAfter: Date): Promise<Date> {
  const signer = await signerOf(authority);
  // X.509 counts whole seconds; rounding down keeps what is promised on the safe side.
  const end = new Date(Math.floor(notAfter.getTime() / 1000) * 1000);
  if (Number.isNaN(end.getTime())) throw new CryptoError('notAfter is not a date');
  if (end.getTime() <= Date.now()) {
    throw new CryptoError(`notAfter is ${end.toISOString()}: it must be in the future`);
  }
  if (end > signer.notAfter) {
    throw new CryptoError(
      `notAfter is ${end.toISOString()}, but the authority itself expires at ${signer.notAfter.toISOString()}: choose an earlier date, or rotate the authority`,
    );
  }
  return end;
}

/** An authority, ready to sign. */
interface Signer {
  readonly name: x509.Name;
  readonly notAfter: Date;
  readonly key: webcrypto.CryptoKey;
  readonly keyIdentifier: x509.AuthorityKeyIdentifierExtension;
}

/** Reading an authority takes longer than signing with it, so it is done once. */
const signers = new WeakMap<Authority, Promise<Signer>>();

function signerOf(authority: Authority): Promise<Signer> {
  const known = signers.get(authority);
  if (known !== undefined) return known;
  const signer = readSigner(authority);
  signers.set(authority, signer);
  return signer;
}

async function readSigner(authority: Authority): Promise<Signer> {
  const certificate = parseCertificate(authority.certificatePem);
  return {
    name: certificate.subjectName,
    notAfter: certificate.notAfter,
    key: await signingKeyFromPem(authority.privateKeyPem),
    keyIdentifier: await x509.AuthorityKeyIdentifierExtension.create(certificate.publicKey, false, webcrypto),
  };
}

/**
 * When a certificate ends.
 * @throws PkiError where it is none.
 */
export const endOf = (certificatePem: string): Date => parseCertificate(certificatePem).notAfter;

function parseCertificate(pem: string): x509.X509Certificate {
  try {
    return new x509.X509Certificate(pem);
  } catch (cause) {
    throw new CryptoError("the authority's certificatePem is not a certificate in PEM form", { cause });
  }
}

/** PEM with the newline at its end that OpenSSL writes, so that files can be put one after the other. */
export const toPem = (data: { toString(format: 'pem'): string }) => `${data.toString('pem').trim()}\n`;
