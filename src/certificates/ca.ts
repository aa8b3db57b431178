import { webcrypto } from 'node:crypto';
import { CryptoError } from '../lib/crypto-error.ts';
import { backdated, createSerial, subjectOf, toPem } from './certificate-fields.ts';
import { createKeyPair, privateKeyToPem, signingAlgorithm, signingKeyFromPem } from './keys.ts';
import * as x509 from './x509.ts';

/** A CA certificate with its private key: it can sign certificates, and never leaves the api. */
export interface CertificateAuthority {
  readonly certificatePem: string;
  /** PKCS#8. */
  readonly privateKeyPem: string;
}

/**
 * Most intermediate CAs between a server CA and a gateway's certificate: the number of rotations that an app survives
 * which trusts only the first CA.
 */
export const longestChain = 8;

/**
 * Creates a self-signed CA.
 * @param request.commonName must be unique: OpenSSL takes a chain of two CAs with equal names for one.
 * @param request.validForDays whole days from now.
 * @param request.chain most CAs below it in a chain (pathLenConstraint); default 0.
 * @throws CryptoError if an argument is out of range.
 */
export async function createCertificateAuthority(request: {
  commonName: string;
  validForDays: number;
  chain?: number;
}): Promise<CertificateAuthority> {
  const { commonName, validForDays, chain = 0 } = request;
  if (!Number.isInteger(validForDays) || validForDays < 1 || validForDays > 36_500) {
    throw new CryptoError(`validForDays is ${validForDays}: it must be a whole number from 1 to 36500`);
  }
  const keys = await createKeyPair();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned(
    {
      serialNumber: createSerial(),
      name: subjectOf(commonName),
      notBefore: backdated(),
      notAfter: new Date(Date.now() + validForDays * 86_400_000),
      keys,
      signingAlgorithm,
      extensions: await caExtensions(keys.publicKey, chain),
    },
    webcrypto,
  );
  return { certificatePem: toPem(certificate), privateKeyPem: await privateKeyToPem(keys.privateKey) };
}

/**
 * Cross-signs a new CA with the former one: a client that trusts only the former CA accepts certificates of the new
 * one if this cross certificate is in the chain (RFC 5280, 3.2).
 * @returns a certificate for the new CA's name and key, PEM.
 * @throws CryptoError if the former CA may sign leaf certificates only.
 */
export async function crossSign(former: CertificateAuthority, certificatePem: string): Promise<string> {
  const issuer = new x509.X509Certificate(former.certificatePem);
  const subject = new x509.X509Certificate(certificatePem);
  if (issuer.getExtension(x509.BasicConstraintsExtension)?.pathLength === 0) {
    throw new CryptoError(
      'the former CA may sign leaf certificates only, so it can not cross-sign another CA',
    );
  }
  const notAfter = issuer.notAfter < subject.notAfter ? issuer.notAfter : subject.notAfter;
  const certificate = await x509.X509CertificateGenerator.create(
    {
      serialNumber: createSerial(),
      subject: subject.subjectName,
      issuer: issuer.subjectName,
      notBefore: backdated(),
      notAfter,
      publicKey: subject.publicKey,
      signingKey: await signingKeyFromPem(former.privateKeyPem),
      signingAlgorithm,
      extensions: [
        ...(await caExtensions(subject.publicKey, longestChain)),
        await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey, false, webcrypto),
      ],
    },
    webcrypto,
  );
  return toPem(certificate);
}

/** @param chain most CAs below this one in a chain (pathLenConstraint; RFC 5280, 4.2.1.9). */
async function caExtensions(
  publicKey: x509.PublicKey | webcrypto.CryptoKey,
  chain: number,
): Promise<x509.Extension[]> {
  return [
    new x509.BasicConstraintsExtension(true, chain, true),
    new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
    await x509.SubjectKeyIdentifierExtension.create(publicKey, false, webcrypto),
  ];
}
