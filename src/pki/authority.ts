import { webcrypto } from 'node:crypto';
import { backdated, createSerial, subjectOf, toPem } from './certificate.ts';
import { PkiError } from './errors.ts';
import { createKeyPair, privateKeyToPem, signingAlgorithm } from './keys.ts';
import * as x509 from './x509.ts';

/** A certificate authority. Whoever holds it can make certificates: it never leaves the api. */
export interface Authority {
  readonly certificatePem: string;
  /** PKCS#8. */
  readonly privateKeyPem: string;
}

/**
 * Makes a self-signed authority that signs leaf certificates only (pathLenConstraint 0; RFC 5280, 4.2.1.9).
 * @param request.validForDays whole days from now.
 * @throws PkiError where the request can't be met.
 */
export async function createAuthority(request: {
  commonName: string;
  validForDays: number;
}): Promise<Authority> {
  const { validForDays } = request;
  if (!Number.isInteger(validForDays) || validForDays < 1 || validForDays > 36_500) {
    throw new PkiError(`validForDays is ${validForDays}: it must be a whole number from 1 to 36500`);
  }
  const keys = await createKeyPair();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned(
    {
      serialNumber: createSerial(),
      name: subjectOf(request.commonName),
      notBefore: backdated(),
      notAfter: new Date(Date.now() + validForDays * 86_400_000),
      keys,
      signingAlgorithm,
      extensions: [
        new x509.BasicConstraintsExtension(true, 0, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey, false, webcrypto),
      ],
    },
    webcrypto,
  );
  return { certificatePem: toPem(certificate), privateKeyPem: await privateKeyToPem(keys.privateKey) };
}
