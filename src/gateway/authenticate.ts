import type tls from 'node:tls';
import { normaliseSerial } from '../certificates/certificate-fields.ts';

/** Serial of the certificate that a client proved, or why the client isn't trusted. */
export type Identity =
  | { readonly serial: string; readonly refusal?: undefined }
  | { readonly serial?: undefined; readonly refusal: 'untrusted' | 'expired' };

/**
 * Reads the serial of the certificate whose key the client proved in this handshake. A resumed session is
 * rejected: its certificate may have expired, and its client proved no key. The gateway's TLS options prevent
 * resumption already; this check is the second line of defence.
 */
export function identify(client: tls.TLSSocket): Identity {
  if (client.isSessionReused()) return { refusal: 'untrusted' };
  if (!client.authorized) {
    // Node sets an OpenSSL code here, although the types declare an Error.
    const expired = String(client.authorizationError) === 'CERT_HAS_EXPIRED';
    return { refusal: expired ? 'expired' : 'untrusted' };
  }
  const certificate = client.getPeerX509Certificate();
  if (certificate === undefined) return { refusal: 'untrusted' };
  return { serial: normaliseSerial(certificate.serialNumber) };
}
