import { randomBytes } from 'node:crypto';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import path from 'node:path';
import pg from 'pg';
import type { TestProject } from 'vitest/node';
import { migrate, openDatabase } from '../../src/postgres/database.ts';
import {
  applyGrants,
  forEachRole,
  type RoleNames,
  roleNames,
  setRolePassword,
  urlFor,
} from '../../src/postgres/server/database-roles.ts';
import { type DatabaseRole, databaseRoles } from '../../src/postgres/server/grants.ts';
import { startEmbeddedPostgres } from '../../src/postgres/server/embedded.ts';

declare module 'vitest' {
  interface ProvidedContext {
    postgres: string;
  }
}

const templateName = 'berth_template';

/** Starts one Postgres for the whole run. Each test file creates a database in it (`createTestDatabase`). */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  // Short, since it contains the server's Unix socket.
  const directory = await mkdtemp('/tmp/berth-pg-');
  await chmod(directory, 0o755);
  const { connectionString, stop } = await startTestServer(directory);
  project.provide('postgres', connectionString);
  return async () => {
    await stop();
    await rm(directory, { recursive: true, force: true });
  };
}

/** Starts a Postgres in this directory, for tests that need a separate server. */
export async function startTestServer(
  directory: string,
): Promise<{ connectionString: string; stop: () => Promise<void> }> {
  const postgres = await startEmbeddedPostgres({
    directory: path.join(directory, 'server'),
    socketDirectory: path.join(directory, 'socket'),
  });
  const { connectionString } = postgres;
  const stop = () => postgres.stop();
  try {
    await query(connectionString, `CREATE DATABASE ${templateName}`);
    const database = openDatabase(inDatabase(connectionString, templateName));
    await migrate(database).finally(() => database.destroy());
    return { connectionString, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** A migrated database for one test file. */
export interface TestDatabase {
  /** Of the owner of the tables. */
  readonly connectionString: string;
  /** Creates Berth's database roles with their grants; returns their connection strings. */
  readonly roleUrls: () => Promise<Readonly<Record<DatabaseRole, string>>>;
  readonly drop: () => Promise<void>;
}

export async function createTestDatabase(server: string): Promise<TestDatabase> {
  const name = `test_${randomBytes(6).toString('hex')}`;
  await query(server, `CREATE DATABASE ${name} TEMPLATE ${templateName}`);
  const connectionString = inDatabase(server, name);
  let made: RoleNames | undefined;
  return {
    connectionString,
    async roleUrls() {
      const owner = openDatabase(connectionString, { maxConnections: 1 });
      try {
        const names = await roleNames(owner);
        for (const role of databaseRoles) await setRolePassword(owner, names[role], rolePassword);
        made = names;
        await applyGrants(owner, names);
        return forEachRole((role) => urlFor(connectionString, names[role], rolePassword));
      } finally {
        await owner.destroy();
      }
    },
    async drop() {
      await query(server, `DROP DATABASE ${name} WITH (FORCE)`);
      for (const role of Object.values(made ?? {})) await query(server, `DROP ROLE ${role}`);
    },
  };
}

const rolePassword = 'role-password';

/** The same server, another database. */
export function inDatabase(connectionString: string, name: string): string {
  const url = new URL(connectionString.replace('@/', '@localhost/'));
  url.pathname = `/${name}`;
  return url.href.replace('@localhost/', '@/');
}

/** Runs one statement over a new connection. */
export async function query(connectionString: string, text: string): Promise<void> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  try {
    await client.query(text);
  } finally {
    await client.end();
  }
}
