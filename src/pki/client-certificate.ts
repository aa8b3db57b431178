import type { IssuedCertificate } from '../core/credentials.ts';
import type { Authority } from './authority.ts';
import { createSerial, normaliseSerial, signLeaf, toPem } from './certificate.ts';
import { createKeyPair, privateKeyToPem } from './keys.ts';
import * as x509 from './x509.ts';

/**
 * Makes a key pair and a certificate for it that is good for TLS clients only.
 * @param request.notAfter when it ends; the certificate counts whole seconds, rounded down.
 * @param request.serial hexadecimal; a new random one where it is left out.
 * @throws PkiError where the request can't be met: nothing was made.
 */
export async function issueClientCertificate(
  authority: Authority,
  request: { commonName: string; notAfter: Date; serial?: string },
): Promise<IssuedCertificate> {
  const serial = request.serial === undefined ? createSerial() : normaliseSerial(request.serial);
  const keys = await createKeyPair();
  const certificate = await signLeaf(authority, {
    commonName: request.commonName,
    serial,
    notAfter: request.notAfter,
    publicKey: keys.publicKey,
    usage: x509.ExtendedKeyUsage.clientAuth,
    alternativeNames: [],
  });
  return {
    serial,
    certificatePem: toPem(certificate),
    privateKeyPem: await privateKeyToPem(keys.privateKey),
    expiresAt: certificate.notAfter,
  };
}
