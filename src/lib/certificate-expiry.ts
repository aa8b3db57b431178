import { X509Certificate } from 'node:crypto';

/**
 * When a certificate expires.
 * @param certificatePem the first certificate in it is read.
 * @throws Error if the text is not a certificate in PEM form.
 */
export function expiryOf(certificatePem: string): Date {
  return new Date(new X509Certificate(certificatePem).validTo);
}
