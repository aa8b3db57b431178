import { randomBytes } from 'node:crypto';
import { CryptoError } from '../lib/crypto-error.ts';
import * as x509 from './x509.ts';

/** Certificates are valid from this long before their creation, for clients whose clock is slow. Milliseconds. */
const clockSkewMs = 5 * 60_000;

/** `notBefore` of a certificate that is created now. */
export const backdated = () => new Date(Date.now() - clockSkewMs);

/** Bytes of a serial: RFC 5280, 4.1.2.2, allows up to 20, of which the first bit must be 0. */
const serialBytes = 17;

/**
 * A new serial: positive, in lower-case hexadecimal without leading zeros. It has 128 random bits, so it is never used
 * twice.
 */
export function createSerial(): string {
  const bytes = randomBytes(serialBytes);
  // The first byte is 0x40 to 0x7f: positive in DER and never zero. The other 16 are fully random.
  bytes[0] = 0x40 | ((bytes[0] ?? 0) & 0x3f);
  return bytes.toString('hex');
}

/**
 * A serial in the form of {@link createSerial}, from any library's hexadecimal form.
 * @throws CryptoError if it is not hexadecimal, or zero.
 */
export function normaliseSerial(text: string): string {
  const serial = text.toLowerCase().replace(/^0+/, '');
  if (!/^[0-9a-f]{1,40}$/.test(serial)) throw new CryptoError('serial is not a positive hexadecimal number');
  return serial;
}

/**
 * A subject with a common name and nothing else; commas and equal signs in the name are not parsed.
 * @throws CryptoError if the name is empty or longer than 64 characters (RFC 5280, ub-common-name).
 */
export function subjectOf(commonName: string): x509.Name {
  if (commonName.length === 0 || commonName.length > 64) {
    throw new CryptoError(`commonName has ${commonName.length} characters: it must have 1 to 64`);
  }
  return new x509.Name([{ CN: [{ utf8String: commonName }] }]);
}

/** PEM with the newline at its end that OpenSSL writes, so that texts can be concatenated. */
export const toPem = (data: { toString(format: 'pem'): string }) => `${data.toString('pem').trim()}\n`;

/** A certificate in DER as PEM, in the form of {@link toPem}. */
export function derToPem(certificate: Buffer): string {
  return `${x509.PemConverter.encode(certificate, x509.PemConverter.CertificateTag).trim()}\n`;
}
