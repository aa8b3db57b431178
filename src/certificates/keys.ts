import { createPrivateKey, webcrypto } from 'node:crypto';
import { CryptoError } from '../lib/crypto-error.ts';
import * as x509 from './x509.ts';

/** Of every key that Berth creates: P-256 (FIPS 186-5; RFC 5480). */
export const keyAlgorithm = { name: 'ECDSA', namedCurve: 'P-256' } as const;

/** Of every certificate and request that Berth signs. */
export const signingAlgorithm = { name: 'ECDSA', hash: 'SHA-256' } as const;

/** Creates a key pair; its private key can be exported. */
export async function createKeyPair(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(keyAlgorithm, true, ['sign', 'verify']);
}

/** A private key as PKCS#8 PEM (RFC 5958), which docker, OpenSSL and Node read. */
export async function privateKeyToPem(key: webcrypto.CryptoKey): Promise<string> {
  const der = await webcrypto.subtle.exportKey('pkcs8', key);
  return `${x509.PemConverter.encode(der, x509.PemConverter.PrivateKeyTag).trim()}\n`;
}

/**
 * Imports a CA's private key for signing only; it can't be exported again.
 * @throws CryptoError if the text is not a P-256 private key. The text itself is never in the message.
 */
export async function signingKeyFromPem(pem: string): Promise<webcrypto.CryptoKey> {
  try {
    const der = createPrivateKey(pem).export({ format: 'der', type: 'pkcs8' });
    return await webcrypto.subtle.importKey('pkcs8', der, keyAlgorithm, false, ['sign']);
  } catch {
    // Without the cause: parsers quote their input.
    throw new CryptoError("the CA's privateKeyPem is not a P-256 private key in PEM form");
  }
}
