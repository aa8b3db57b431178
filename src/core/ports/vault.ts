/** Encrypts values for the database. A value is tied to its row and column, so it can't be opened from another. */
export interface Vault {
  /** @param row row and column, such as `bindings/<id>/credentials`; {@link open} needs the same. */
  seal(plaintext: Buffer, row: string): Buffer;
  open(sealed: Buffer, row: string): Buffer;
}
