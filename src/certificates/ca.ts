import { webcrypto } from 'node:crypto';
import { backdated, createSerial, subjectOf, toPem } from './certificate-fields.ts';
import { CryptoError } from '../lib/crypto-error.ts';
import { createKeyPair, privateKeyToPem, signingAlgorithm, signingKeyFromPem } from './keys.ts';
import * as x509 from './x509.ts';

/** A certificate authority. Whoever holds it can make certificates: it never leaves the api. */
export interface CertificateAuthority {
  readonly certificatePem: string;
  /** PKCS#8. */
  readonly privateKeyPem: string;
}

/**
 * How many authorities may stand between a server authority and a gateway's certificate: so many rotations can follow
 * each other while an app trusts only the first.
 */
export const longestChain = 8;

/**
 * Makes a self-signed authority.
 * @param request.commonName of its own: with equal names a chain of two would be taken for one.
 * @param request.validForDays whole days from now.
 * @param request.chain how many authorities it may vouch for, one after the other; 0 where left out.
 * @throws PkiError where the request can't be met.
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
      extensions: await authorityExtensions(keys.publicKey, chain),
    },
    webcrypto,
  );
  return { certificatePem: toPem(certificate), privateKeyPem: await privateKeyToPem(keys.privateKey) };
}

/**
 * Vouches for a new authority by the former one: whoever trusts only the former one accepts what the new one signs
 * when it is shown this beside it (RFC 5280, 3.2).
 * @returns a certificate for the new authority's name and key, PEM.
 * @throws PkiError where the former one may sign leaf certificates only.
 */
export async function crossSign(former: CertificateAuthority, certificatePem: string): Promise<string> {
  const issuer = new x509.X509Certificate(former.certificatePem);
  const subject = new x509.X509Certificate(certificatePem);
  if (issuer.getExtension(x509.BasicConstraintsExtension)?.pathLength === 0) {
    throw new CryptoError('the former authority may sign leaf certificates only, and can vouch for no other');
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
        ...(await authorityExtensions(subject.publicKey, longestChain)),
        await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey, false, webcrypto),
      ],
    },
    webcrypto,
  );
  return toPem(certificate);
}

/** @param chain how many authorities may follow below (pathLenConstraint; RFC 5280, 4.2.1.9). */
async function authorityExtensions(
  publicKey: x509.PublicKey | webcrypto.CryptoKey,
  chain: number,
): Promise<x509.Extension[]> {
  return [
    new x509.BasicConstraintsExtension(true, chain, true),
    new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
    await x509.SubjectKeyIdentifierExtension.create(publicKey, false, webcrypto),
  ];
}
