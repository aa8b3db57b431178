import { createPrivateKey, webcrypto } from 'node:crypto';
import { CryptoError } from '../lib/crypto-error.ts';
import * as x509 from './x509.ts';

/** What every key of Berth is made for (FIPS 186-5, P-256; RFC 5480). */
export const keyAlgorithm = { name: 'ECDSA', namedCurve: 'P-256' } as const;

/** How every certificate and request of Berth is signed. */
export const signingAlgorithm = { name: 'ECDSA', hash: 'SHA-256' } as const;

/** Makes a key pair whose private key can be exported once, as PEM. */
export async function createKeyPair(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(keyAlgorithm, true, ['sign', 'verify']);
}

/** A private key as PKCS#8 PEM (RFC 5958), which docker, OpenSSL and Node read. */
export async function privateKeyToPem(key: webcrypto.CryptoKey): Promise<string> {
  const der = await webcrypto.subtle.exportKey('pkcs8', key);
  return `${x509.PemConverter.encode(der, x509.PemConverter.PrivateKeyTag).trim()}\n`;
}

/**
 * Reads an authority's private key for signing only; it can't be exported again.
 * @throws PkiError where the text is no P-256 private key. The text itself is never in the message.
 */
export async function signingKeyFromPem(pem: string): Promise<webcrypto.CryptoKey> {
  try {
    const der = createPrivateKey(pem).export({ format: 'der', type: 'pkcs8' });
    return await webcrypto.subtle.importKey('pkcs8', der, keyAlgorithm, false, ['sign']);
  } catch {
    // The cause is left out on purpose: parsers quote their input.
    throw new CryptoError("the authority's privateKeyPem is not a P-256 private key in PEM form");
  }
}
