import { webcrypto } from 'node:crypto';
import type { CertificateAuthority } from './ca.ts';
import { backdated, subjectOf } from './certificate-fields.ts';
import { signingAlgorithm, signingKeyFromPem } from './keys.ts';
import * as x509 from './x509.ts';
import { CryptoError } from '../lib/crypto-error.ts';

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
export async function signLeaf(
  authority: CertificateAuthority,
  leaf: LeafRequest,
): Promise<x509.X509Certificate> {
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
export async function possibleEnd(authority: CertificateAuthority, notAfter: Date): Promise<Date> {
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
const signers = new WeakMap<CertificateAuthority, Promise<Signer>>();

function signerOf(authority: CertificateAuthority): Promise<Signer> {
  const known = signers.get(authority);
  if (known !== undefined) return known;
  const signer = readSigner(authority);
  signers.set(authority, signer);
  return signer;
}

async function readSigner(authority: CertificateAuthority): Promise<Signer> {
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
