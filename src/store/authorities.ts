import type { Knex } from 'knex';

/** A certificate authority as it is kept: its key is encrypted under the master key. */
export interface StoredAuthority {
  readonly certificatePem: string;
  readonly sealedKey: Buffer;
}

export type AuthorityName = 'client' | 'server';

interface AuthorityRow {
  name: AuthorityName;
  certificate: string;
  sealed_key: Buffer;
}

/** The authority on record; made by `make` where there is none, once even where several apis start together. */
export async function ensureAuthority(
  database: Knex,
  name: AuthorityName,
  make: () => Promise<StoredAuthority>,
): Promise<StoredAuthority> {
  const find = async () => {
    const row = await database<AuthorityRow>('authorities').where({ name }).first();
    return row === undefined ? undefined : { certificatePem: row.certificate, sealedKey: row.sealed_key };
  };
  const existing = await find();
  if (existing !== undefined) return existing;
  const made = await make();
  await database<AuthorityRow>('authorities')
    .insert({ name, certificate: made.certificatePem, sealed_key: made.sealedKey })
    .onConflict('name')
    .ignore();
  const kept = await find();
  if (kept === undefined) throw new Error(`the ${name} authority could not be recorded`);
  return kept;
}

/** The certificate of an authority, without its key: what a gateway may know. */
export async function authorityCertificate(database: Knex, name: AuthorityName): Promise<string | undefined> {
  return (await database<AuthorityRow>('authorities').where({ name }).first('certificate'))?.certificate;
}
