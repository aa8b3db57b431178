import type { IssuedCertificate } from '../core/ports/certificate-issuer.ts';
import type { Authority } from './ca.ts';
import { possibleEnd, subjectOf } from './leaf.ts';
import { derToPem, makeMould, type Mould } from './certificate-template.ts';

/** A mould for each authority and length of name; all bindings' names are of one length. */
const moulds = new WeakMap<Authority, Map<number, Promise<Mould>>>();

/**
 * Makes a key pair and a certificate for it that is good for TLS clients only.
 * @param request.notAfter when it ends; the certificate counts whole seconds, rounded down.
 * @throws PkiError where the request can't be met: nothing was made.
 */
export async function issueClientCertificate(
  authority: Authority,
  request: { commonName: string; notAfter: Date },
): Promise<IssuedCertificate> {
  const { commonName } = request;
  subjectOf(commonName);
  const expiresAt = await possibleEnd(authority, request.notAfter);
  const mould = await mouldOf(authority, Buffer.byteLength(commonName));
  const { serial, certificate, privateKeyPem } = await mould.cast({ commonName, notAfter: expiresAt });
  return { serial, certificatePem: derToPem(certificate), privateKeyPem, expiresAt };
}

function mouldOf(authority: Authority, nameLength: number): Promise<Mould> {
  const known = moulds.get(authority) ?? new Map<number, Promise<Mould>>();
  moulds.set(authority, known);
  const mould = known.get(nameLength) ?? makeMould(authority, nameLength);
  known.set(nameLength, mould);
  return mould;
}
