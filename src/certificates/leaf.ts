import { webcrypto } from 'node:crypto';
import { CryptoError } from '../lib/crypto-error.ts';
import type { CertificateAuthority } from './ca.ts';
import { backdated, subjectOf } from './certificate-fields.ts';
import { signingAlgorithm, signingKeyFromPem } from './keys.ts';
import * as x509 from './x509.ts';

const notACa = new x509.BasicConstraintsExtension(false, undefined, true);
const signsHandshakes = new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true);

/** Content of a certificate that is not a CA's. */
export interface LeafRequest {
  readonly commonName: string;
  readonly serial: string;
  readonly notAfter: Date;
  readonly publicKey: x509.PublicKey | webcrypto.CryptoKey;
  /** The only extended key usage. */
  readonly usage: x509.ExtendedKeyUsage;
  readonly alternativeNames: x509.JsonGeneralNames;
}

/**
 * Signs a certificate that is valid for one usage and can't sign others.
 * @throws CryptoError if it would be expired, or valid for longer than its CA.
 */
export async function signLeaf(ca: CertificateAuthority, leaf: LeafRequest): Promise<x509.X509Certificate> {
  const signer = await signerOf(ca);
  const notAfter = await validatedExpiry(ca, leaf.notAfter);
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
        notACa,
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
 * The exact expiry of a certificate that this CA signs: `notAfter` rounded down to a whole second (X.509 has no
 * fractions).
 * @throws CryptoError if the certificate would be expired, or valid for longer than its CA.
 */
export async function validatedExpiry(ca: CertificateAuthority, notAfter: Date): Promise<Date> {
  const signer = await signerOf(ca);
  const expiry = new Date(Math.floor(notAfter.getTime() / 1000) * 1000);
  if (Number.isNaN(expiry.getTime())) throw new CryptoError('notAfter is not a date');
  if (expiry.getTime() <= Date.now()) {
    throw new CryptoError(`notAfter is ${expiry.toISOString()}: it must be in the future`);
  }
  if (expiry > signer.notAfter) {
    throw new CryptoError(
      `notAfter is ${expiry.toISOString()}, but the CA itself expires at ${signer.notAfter.toISOString()}: choose an earlier date, or rotate the CA`,
    );
  }
  return expiry;
}

/** A parsed CA. */
interface Signer {
  readonly name: x509.Name;
  readonly notAfter: Date;
  readonly key: webcrypto.CryptoKey;
  readonly keyIdentifier: x509.AuthorityKeyIdentifierExtension;
}

/** Parsing a CA takes longer than signing with it. */
const signers = new WeakMap<CertificateAuthority, Promise<Signer>>();

function signerOf(ca: CertificateAuthority): Promise<Signer> {
  const known = signers.get(ca);
  if (known !== undefined) return known;
  const signer = parseSigner(ca);
  signers.set(ca, signer);
  return signer;
}

async function parseSigner(ca: CertificateAuthority): Promise<Signer> {
  const certificate = parseCertificate(ca.certificatePem);
  return {
    name: certificate.subjectName,
    notAfter: certificate.notAfter,
    key: await signingKeyFromPem(ca.privateKeyPem),
    keyIdentifier: await x509.AuthorityKeyIdentifierExtension.create(certificate.publicKey, false, webcrypto),
  };
}

function parseCertificate(pem: string): x509.X509Certificate {
  try {
    return new x509.X509Certificate(pem);
  } catch (cause) {
    throw new CryptoError("the CA's certificatePem is not a certificate in PEM form", { cause });
  }
}
