import { randomBytes } from 'node:crypto';
import * as x509 from './x509.ts';
import { CryptoError } from '../lib/crypto-error.ts';

/** Certificates are valid from a little before they are made, for clients whose clock is slow. Milliseconds. */
const clockSkewMs = 5 * 60_000;

/** From when a certificate made now is valid. */
export const backdated = () => new Date(Date.now() - clockSkewMs);

/** Bytes of a serial: RFC 5280, 4.1.2.2, allows up to 20, of which the first bit must be 0. */
const serialBytes = 17;

/**
 * A new serial: lower-case hexadecimal, no leading zeros, positive, with at least 128 random bits (and so
 * never used twice).
 */
export function createSerial(): string {
  const bytes = randomBytes(serialBytes);
  // The first byte is 0x40 to 0x7f: positive in DER, never zero, and the other 16 are random in full.
  bytes[0] = 0x40 | ((bytes[0] ?? 0) & 0x3f);
  return bytes.toString('hex');
}

/**
 * A serial as Berth writes it, from however a library prints it.
 * @throws PkiError where it is not hexadecimal, or zero.
 */
export function normaliseSerial(text: string): string {
  const serial = text.toLowerCase().replace(/^0+/, '');
  if (!/^[0-9a-f]{1,40}$/.test(serial)) throw new CryptoError('serial is not a positive hexadecimal number');
  return serial;
}

/**
 * A subject of nothing but a common name, however many commas and equal signs are in that.
 * @throws PkiError where the name is empty or longer than 64 characters (RFC 5280, ub-common-name).
 */
export function subjectOf(commonName: string): x509.Name {
  if (commonName.length === 0 || commonName.length > 64) {
    throw new CryptoError(`commonName has ${commonName.length} characters: it must have 1 to 64`);
  }
  return new x509.Name([{ CN: [{ utf8String: commonName }] }]);
}

/** PEM with the newline at its end that OpenSSL writes, so that files can be put one after the other. */
export const toPem = (data: { toString(format: 'pem'): string }) => `${data.toString('pem').trim()}\n`;
