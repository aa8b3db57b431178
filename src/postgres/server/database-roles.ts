import { createHash, createHmac, pbkdf2, randomBytes } from 'node:crypto';
import { promisify } from 'node:util';
import type { Knex } from 'knex';
import pg from 'pg';
import { type DatabaseRole, databaseRoles, grants } from './grants.ts';

/** The owner's credentials can't make or use the roles; the message has the remedy. */
export class DatabaseRoleError extends Error {
  override readonly name = 'DatabaseRoleError';
}

/** The names of the three roles in Postgres. */
export type RoleNames = Readonly<Record<DatabaseRole, string>>;

export function forEachRole<T>(make: (role: DatabaseRole) => T): Readonly<Record<DatabaseRole, T>> {
  return { api: make('api'), gateway: make('gateway'), worker: make('worker') };
}

/**
 * The names of this database's roles: `berth_DATABASE_api` and so on. Roles belong to a server, which may contain the
 * databases of several Berths, so they include the name of the database.
 */
export async function roleNames(owner: Knex): Promise<RoleNames> {
  const { rows } = await owner.raw<{ rows: { name: string }[] }>('SELECT current_database() AS name');
  const database = rows[0]?.name ?? '';
  // Postgres truncates names after 63 bytes (manual, 4.1.1).
  const short = /^[a-z0-9_]{1,45}$/.test(database)
    ? database
    : createHash('sha256').update(database).digest('hex').slice(0, 16);
  return forEachRole((role) => `berth_${short}_${role}`);
}

/**
 * Makes a role that may log in with this password, or sets the password if the role exists. The server gets a SCRAM
 * verifier and never the password, so the password is in none of its logs.
 * @throws DatabaseRoleError if the owner of the tables may not make roles.
 */
export async function setRolePassword(owner: Knex, name: string, password: string): Promise<void> {
  const verifier = await scramVerifier(password);
  const { rows } = await owner.raw<{ rows: unknown[] }>('SELECT FROM pg_roles WHERE rolname = ?', [name]);
  const verb = rows.length === 0 ? 'CREATE' : 'ALTER';
  try {
    await owner.raw(`${verb} ROLE ${pg.escapeIdentifier(name)} LOGIN PASSWORD '${verifier}'`);
  } catch (cause) {
    // 42501: insufficient_privilege (PostgreSQL manual, appendix A).
    if ((cause as { code?: string }).code !== '42501') throw cause;
    throw new DatabaseRoleError(
      `The owner of Berth's tables may not make the role ${name}: give it CREATEROLE (ALTER ROLE … CREATEROLE), or make three roles yourself and name their URLs in BERTH_API_DATABASE_URL_FILE, BERTH_GATEWAY_DATABASE_URL_FILE and BERTH_WORKER_DATABASE_URL_FILE.`,
      { cause },
    );
  }
}

/** Id of the advisory lock that serializes starts; any number that nothing else uses. */
const grantLockId = 0x62_65_72_74;

/** Grants each role the rights in grants.ts on the current tables, and revokes all others. */
export async function applyGrants(owner: Knex, names: RoleNames): Promise<void> {
  const identifiers = forEachRole((role) => pg.escapeIdentifier(names[role]));
  const all = databaseRoles.map((role) => identifiers[role]).join(', ');
  await owner.transaction(async (transaction) => {
    await transaction.raw('SELECT pg_advisory_xact_lock(?)', [grantLockId]);
    const { rows } = await transaction.raw<{
      rows: { database: string; schema: string; owns_database: boolean }[];
    }>(
      `SELECT current_database() AS database, current_schema() AS schema,
         pg_has_role(datdba, 'USAGE') AS owns_database FROM pg_database WHERE datname = current_database()`,
    );
    const current = rows[0];
    if (current === undefined) throw new Error('pg_database has no row for the current database');
    const [database, schema] = [pg.escapeIdentifier(current.database), pg.escapeIdentifier(current.schema)];
    const statements = [
      `REVOKE ALL ON ALL TABLES IN SCHEMA ${schema} FROM ${all}`,
      `REVOKE ALL ON ALL SEQUENCES IN SCHEMA ${schema} FROM ${all}`,
      `REVOKE ALL ON ALL ROUTINES IN SCHEMA ${schema} FROM ${all}`,
      `GRANT USAGE ON SCHEMA ${schema} TO ${all}`,
      // Keeps out roles of other databases on the server, and prevents temporary tables that shadow Berth's.
      ...(current.owns_database
        ? [
            `REVOKE CONNECT, TEMPORARY ON DATABASE ${database} FROM PUBLIC`,
            `GRANT CONNECT ON DATABASE ${database} TO ${all}`,
          ]
        : []),
      ...Object.entries(grants).flatMap(([table, of]) =>
        databaseRoles.flatMap((role) =>
          (of[role] ?? []).map(
            (right) => `GRANT ${right} ON ${schema}.${pg.escapeIdentifier(table)} TO ${identifiers[role]}`,
          ),
        ),
      ),
    ];
    await transaction.raw(statements.join(';\n'));
  });
}

/**
 * Checks that a process has no more rights than its database role: neither a superuser's nor the owner's.
 * @throws DatabaseRoleError
 */
export async function refuseOwner(database: Knex, role: DatabaseRole): Promise<void> {
  const { rows } = await database.raw<{
    rows: { name: string; is_privileged: boolean; owns_tables: boolean }[];
  }>(
    `SELECT current_user AS name, rolsuper OR rolcreaterole AS is_privileged,
       coalesce((SELECT pg_has_role(relowner, 'MEMBER') FROM pg_class WHERE oid = to_regclass('instances')), false) AS owns_tables
     FROM pg_roles WHERE rolname = current_user`,
  );
  const row = rows[0];
  if (row === undefined || row.is_privileged || row.owns_tables) {
    throw new DatabaseRoleError(
      `The ${role} was given the database URL of ${row?.name ?? 'an unknown user'}, which has more rights than it needs: set BERTH_${role.toUpperCase()}_DATABASE_URL_FILE to the file with the URL of the role made for it ("npm start" writes database-url.${role} in its state directory).`,
    );
  }
}

/**
 * Whether these credentials are valid.
 * @throws Error if the server can't be reached.
 */
export async function canLogIn(connectionString: string): Promise<boolean> {
  const client = new pg.Client({ connectionString, connectionTimeoutMillis: 5_000 });
  try {
    await client.connect();
    return true;
  } catch (error) {
    // Class 28: invalid authorization. 42501: no CONNECT on this database yet.
    const { code = '' } = error as { code?: string };
    if (code.startsWith('28') || code === '42501') return false;
    throw error;
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** The same server and database for another user. */
export function urlFor(connectionString: string, user: string, password: string): string {
  const [, scheme = '', rest = ''] = /^(postgres(?:ql)?:\/\/)(?:[^/?]*@)?(.*)$/s.exec(connectionString) ?? [];
  const [location = '', query] = rest.split('?', 2);
  const parameters = new URLSearchParams(query);
  // pg prefers these to the credentials before the host.
  parameters.delete('user');
  parameters.delete('password');
  const credentials = `${encodeURIComponent(user)}:${encodeURIComponent(password)}`;
  return `${scheme}${credentials}@${location}${parameters.size > 0 ? `?${parameters.toString()}` : ''}`;
}

/** The user in a connection string; undefined if there is none. */
export function userOf(connectionString: string): string | undefined {
  return new pg.Client({ connectionString }).user;
}

const iterations = 4096;

/** What Postgres stores for a password (RFC 5803; RFC 5802, section 3). */
async function scramVerifier(password: string): Promise<string> {
  const salt = randomBytes(16);
  const salted = await promisify(pbkdf2)(password, salt, iterations, 32, 'sha256');
  const hmac = (text: string) => createHmac('sha256', salted).update(text).digest();
  const stored = createHash('sha256').update(hmac('Client Key')).digest('base64');
  const server = hmac('Server Key').toString('base64');
  return `SCRAM-SHA-256$${iterations}:${salt.toString('base64')}$${stored}:${server}`;
}
