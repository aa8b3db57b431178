import type { IssuedCertificate } from '../core/ports/certificate-issuer.ts';
import type { CertificateAuthority } from './ca.ts';
import { possibleEnd } from './leaf.ts';
import { subjectOf } from './certificate-fields.ts';
import { derToPem, createCertificateTemplate, type CertificateTemplate } from './certificate-template.ts';

/** A mould for each authority and length of name; all bindings' names are of one length. */
const moulds = new WeakMap<CertificateAuthority, Map<number, Promise<CertificateTemplate>>>();

/**
 * Makes a key pair and a certificate for it that is good for TLS clients only.
 * @param request.notAfter when it ends; the certificate counts whole seconds, rounded down.
 * @throws PkiError where the request can't be met: nothing was made.
 */
export async function issueClientCertificate(
  authority: CertificateAuthority,
  request: { commonName: string; notAfter: Date },
): Promise<IssuedCertificate> {
  const { commonName } = request;
  subjectOf(commonName);
  const expiresAt = await possibleEnd(authority, request.notAfter);
  const mould = await mouldOf(authority, Buffer.byteLength(commonName));
  const { serial, certificate, privateKeyPem } = await mould.stamp({ commonName, notAfter: expiresAt });
  return { serial, certificatePem: derToPem(certificate), privateKeyPem, expiresAt };
}

function mouldOf(authority: CertificateAuthority, nameLength: number): Promise<CertificateTemplate> {
  const known = moulds.get(authority) ?? new Map<number, Promise<CertificateTemplate>>();
  moulds.set(authority, known);
  const mould = known.get(nameLength) ?? createCertificateTemplate(authority, nameLength);
  known.set(nameLength, mould);
  return mould;
}
