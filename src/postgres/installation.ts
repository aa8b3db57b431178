import type { Knex } from 'knex';
import type { DatabaseContent, Installation, InstallationRecords } from '../core/ports/installation.ts';

interface InstallationRow {
  id: string;
  site: string;
  created_at: Date;
}

const toInstallation = ({ id, site, created_at: createdAt }: InstallationRow): Installation => ({
  id,
  site,
  createdAt,
});

export function createInstallationRecords(database: Knex): InstallationRecords {
  const find = async () => {
    if (!(await hasTable(database, 'installation'))) return undefined;
    const row = await database<InstallationRow>('installation').first();
    return row && toInstallation(row);
  };
  return {
    find,
    async record({ id, site }) {
      await database.raw('INSERT INTO installation (id, site) VALUES (?, ?) ON CONFLICT DO NOTHING', [
        id,
        site,
      ]);
      const recorded = await find();
      if (recorded === undefined) throw new Error('the row of `installation` has disappeared');
      return recorded;
    },
  };
}

/** Reads whose database this is, of any version; changes nothing. The connection is that of the owner of the tables. */
export async function readDatabaseContent(owner: Knex): Promise<DatabaseContent> {
  const installation = await createInstallationRecords(owner).find();
  if (installation !== undefined) return { kind: 'recorded', installation };
  if (!(await hasTable(owner, 'instances'))) return { kind: 'empty' };
  const hosts: { id: string }[] = await owner('hosts')
    .whereIn('state', ['running', 'parked', 'pooled'])
    .select('id');
  const keys: { id: string }[] = (await hasTable(owner, 'master_keys'))
    ? await owner('master_keys').whereNot({ state: 'retired' }).select('id')
    : [];
  return { kind: 'former', masterKeys: keys.map(({ id }) => id), hosts: hosts.map(({ id }) => id) };
}

async function hasTable(database: Knex, name: string): Promise<boolean> {
  const { rows } = await database.raw<{ rows: { found: boolean }[] }>(
    'SELECT to_regclass(?) IS NOT NULL AS found',
    [name],
  );
  return rows[0]?.found === true;
}
