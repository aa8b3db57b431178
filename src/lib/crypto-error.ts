/** A key, certificate or request can't be used as it was asked. The message names the field and holds no secret. */
export class CryptoError extends Error {
  override readonly name = 'PkiError';
}
