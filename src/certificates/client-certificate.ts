import type { IssuedCertificate } from '../core/ports/certificate-issuer.ts';
import type { CertificateAuthority } from './ca.ts';
import { derToPem, subjectOf } from './certificate-fields.ts';
import { type CertificateTemplate, createCertificateTemplate } from './certificate-template.ts';
import { validatedExpiry } from './leaf.ts';

/** One template per CA and length of name; the names of all bindings have the same length. */
const templates = new WeakMap<CertificateAuthority, Map<number, Promise<CertificateTemplate>>>();

/**
 * Creates a key pair and a certificate for it that is valid for TLS clients only.
 * @param request.notAfter the expiry; rounded down to whole seconds.
 * @throws CryptoError if the name or expiry is invalid.
 */
export async function issueClientCertificate(
  ca: CertificateAuthority,
  request: { commonName: string; notAfter: Date },
): Promise<IssuedCertificate> {
  const { commonName } = request;
  // Validates the name.
  subjectOf(commonName);
  const expiresAt = await validatedExpiry(ca, request.notAfter);
  const template = await templateOf(ca, Buffer.byteLength(commonName));
  const { serial, certificate, privateKeyPem } = await template.stamp({ commonName, notAfter: expiresAt });
  return { serial, certificatePem: derToPem(certificate), privateKeyPem, expiresAt };
}

function templateOf(ca: CertificateAuthority, nameLength: number): Promise<CertificateTemplate> {
  const known = templates.get(ca) ?? new Map<number, Promise<CertificateTemplate>>();
  templates.set(ca, known);
  const template = known.get(nameLength) ?? createCertificateTemplate(ca, nameLength);
  known.set(nameLength, template);
  return template;
}
