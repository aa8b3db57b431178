import type { Knex } from 'knex';
import type { AuthorityName, AuthorityOverview } from '../core/ports/certificate-authorities.ts';
import { endOf } from '../certificates/leaf.ts';
import { channels } from './channels.ts';
import { notify } from './notify.ts';

/** A certificate authority as it is kept: its key is encrypted under the master key, and forgotten once it retires. */
export interface StoredAuthority {
  readonly id: string;
  readonly name: AuthorityName;
  readonly state: AuthorityOverview['state'];
  readonly predecessor: string | undefined;
  readonly certificatePem: string;
  /** The same key, vouched for by the predecessor. */
  readonly crossCertificatePem: string | undefined;
  readonly sealedKey: Buffer | undefined;
}

/** What is new of an authority. */
export type NewAuthority = Omit<StoredAuthority, 'name' | 'state' | 'sealedKey'> & {
  readonly sealedKey: Buffer;
};

interface AuthorityRow {
  id: string;
  name: AuthorityName;
  state: StoredAuthority['state'];
  since: Date;
  predecessor: string | null;
  certificate: string;
  cross_certificate: string | null;
  sealed_key: Buffer | null;
}

/** Every authority that is trusted, with the keys of those that sign. */
export async function trustedAuthorities(database: Knex): Promise<readonly StoredAuthority[]> {
  const rows = await database<AuthorityRow>('certificate_authorities')
    .whereNot({ state: 'retired' })
    .orderBy('since');
  return rows.map((row) => ({
    id: row.id,
    name: row.name,
    state: row.state,
    predecessor: row.predecessor ?? undefined,
    certificatePem: row.certificate,
    crossCertificatePem: row.cross_certificate ?? undefined,
    sealedKey: row.sealed_key ?? undefined,
  }));
}

/** Makes the first authority of a name where there is none, once even where several apis start together. */
export async function ensureAuthority(
  database: Knex,
  name: AuthorityName,
  make: () => Promise<NewAuthority>,
): Promise<void> {
  const exists = await database<AuthorityRow>('certificate_authorities').where({ name }).first('id');
  if (exists === undefined) await insert(database, name, 'current', await make());
}

/** Records the authority that is to come; one that another has recorded at the same time stays. */
export async function insertNextAuthority(
  database: Knex,
  name: AuthorityName,
  made: NewAuthority,
): Promise<void> {
  await insert(database, name, 'next', made);
}

async function insert(
  database: Knex,
  name: AuthorityName,
  state: 'next' | 'current',
  made: NewAuthority,
): Promise<void> {
  await database.transaction(async (transaction) => {
    await transaction('certificate_authorities')
      .insert({
        id: made.id,
        name,
        state,
        predecessor: made.predecessor ?? null,
        certificate: made.certificatePem,
        cross_certificate: made.crossCertificatePem ?? null,
        sealed_key: made.sealedKey,
      })
      .onConflict(transaction.raw(`(name, state) WHERE state IN ('next', 'current')`))
      .ignore();
    await notify(transaction, channels.authorities, made.id);
  });
}

/** From now on the next authority signs; the key of the former one is forgotten. */
export async function promoteAuthority(database: Knex, name: AuthorityName, next: string): Promise<void> {
  await database.transaction(async (transaction) => {
    const since = transaction.raw('clock_timestamp()');
    await transaction('certificate_authorities')
      .where({ name, state: 'current' })
      .update({ state: 'retiring', sealed_key: null, since });
    await transaction('certificate_authorities')
      .where({ id: next, state: 'next' })
      .update({ state: 'current', since });
    await notify(transaction, channels.authorities, next);
  });
}

const liveBindings = `(SELECT count(*) FROM bindings WHERE bindings.state = 'live' AND expires_at > clock_timestamp()
  AND CASE certificate_authorities.name WHEN 'client' THEN client_ca ELSE server_ca END = certificate_authorities.id)`;

export async function listAuthorities(database: Knex): Promise<readonly AuthorityOverview[]> {
  const { rows } = await database.raw<{ rows: (AuthorityRow & { live: number })[] }>(
    `SELECT id, name, state, since, certificate, ${liveBindings}::integer AS live FROM certificate_authorities ORDER BY name, since DESC LIMIT 100`,
  );
  return rows.map(({ id, name, state, since, certificate, live }) => ({
    ...{ id, name, state, since },
    endsAt: endOf(certificate),
    liveBindings: live,
  }));
}

/**
 * Retires authorities that no live binding needs any more.
 * @param settleMs a bind that had begun before its authority began to retire has ended by then; milliseconds.
 */
export async function retireAuthorities(database: Knex, settleMs: number): Promise<void> {
  const { rows } = await database.raw<{ rows: { id: string }[] }>(
    `UPDATE certificate_authorities SET state = 'retired', since = clock_timestamp()
     WHERE state = 'retiring' AND since < clock_timestamp() - ? * interval '1 millisecond' AND ${liveBindings} = 0
     RETURNING id`,
    [settleMs],
  );
  for (const { id } of rows) await notify(database, channels.authorities, id);
}

/** What a gateway may know: whose certificates it trusts, and which server authority is to vouch for it. */
export async function gatewayAuthorities(
  database: Knex,
): Promise<{ clients: readonly { id: string; certificate: string }[]; server: string | undefined }> {
  const rows = await database<AuthorityRow>('certificate_authorities')
    .whereNot({ state: 'retired' })
    .select('id', 'name', 'state', 'certificate');
  const servers = rows.filter(({ name }) => name === 'server');
  const server =
    servers.find(({ state }) => state === 'next') ?? servers.find(({ state }) => state === 'current');
  return { clients: rows.filter(({ name }) => name === 'client'), server: server?.id };
}
