import type tls from 'node:tls';
import { normaliseSerial } from '../certificates/leaf.ts';

/** Whose certificate a client has shown, or why that is not enough. */
export type Identity =
  | { readonly serial: string; readonly refusal?: undefined }
  | { readonly serial?: undefined; readonly refusal: 'untrusted' | 'expired' };

/**
 * Reads the serial of the certificate that the client has proved, in this very handshake, to be its own.
 * What a resumed session says is never taken: its certificate may have expired, and its client may hold no
 * key. The gateway resumes none; this stands behind that.
 */
export function identify(client: tls.TLSSocket): Identity {
  if (client.isSessionReused()) return { refusal: 'untrusted' };
  if (!client.authorized) {
    // Node gives an OpenSSL code here, though the types say Error.
    const expired = String(client.authorizationError) === 'CERT_HAS_EXPIRED';
    return { refusal: expired ? 'expired' : 'untrusted' };
  }
  const certificate = client.getPeerX509Certificate();
  if (certificate === undefined) return { refusal: 'untrusted' };
  return { serial: normaliseSerial(certificate.serialNumber) };
}
