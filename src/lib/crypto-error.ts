/** A key, certificate or request is invalid. The message names the field and contains no secret. */
export class CryptoError extends Error {
  override readonly name = 'CryptoError';
}
