import { execFile } from 'node:child_process';
import { appendFile, chmod, chown, readFile, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../../src/postgres/server/embedded.ts';
import { until } from './until.ts';

/** A Postgres server at an address that another server can take over. */
export interface PostgresServer {
  readonly directory: string;
  readonly url: string;
  start(): Promise<void>;
  stop(): Promise<void>;
}

const replicaPatienceMs = 120_000;

/** @param directory short: it contains a Unix socket. @param address folder of the socket. */
export async function makeServer(directory: string, address: string): Promise<PostgresServer> {
  let running: EmbeddedPostgres | undefined;
  const server = {
    directory,
    url: '',
    async start() {
      running = await startEmbeddedPostgres({ directory, socketDirectory: address });
      server.url = running.connectionString;
    },
    async stop() {
      await running?.stop();
      running = undefined;
    },
  };
  await server.start();
  return server;
}

export async function ask<T>(url: string, statement: string): Promise<T | undefined> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<{ answer: T }>(statement)).rows[0]?.answer;
  } finally {
    await client.end();
  }
}

/** A copy of the files of a stopped server, with the owners of the originals. */
export async function copyFiles(from: string, to: string): Promise<void> {
  await rm(to, { recursive: true, force: true });
  await promisify(execFile)('cp', ['--archive', from, to]);
}

/**
 * Copies a running server as a streaming replica, and returns when the replica has all that the server has written so
 * far. The replica has stopped then: it lacks all that the server commits from now on.
 */
export async function makeReplica(
  of: PostgresServer,
  directory: string,
  address: string,
): Promise<PostgresServer> {
  const client = new pg.Client({ connectionString: of.url });
  await client.connect();
  try {
    await client.query("SELECT pg_backup_start('replica', true)");
    // Files may disappear meanwhile (PostgreSQL manual, 25.3.3).
    await copyFiles(of.directory, directory).catch((error: unknown) => {
      const { stderr = '' } = error as { stderr?: string };
      const problems = stderr.split('\n').filter((line) => line !== '');
      if (problems.length === 0 || !problems.every((line) => line.endsWith('No such file or directory')))
        throw error;
    });
    const { rows } = await client.query<{ labelfile: string }>('SELECT labelfile FROM pg_backup_stop()');
    const data = path.join(directory, 'data');
    await writeFile(path.join(data, 'backup_label'), rows[0]?.labelfile ?? '');
    await rm(path.join(data, 'postmaster.pid'), { force: true });
    await writeFile(path.join(data, 'standby.signal'), '');
    const password = (await readFile(path.join(directory, 'password'), 'utf8')).trim();
    const host = new URL(of.url.replace('@/', '@localhost/')).searchParams.get('host') ?? '';
    await appendFile(
      path.join(data, 'postgresql.auto.conf'),
      `primary_conninfo = 'host=${host} user=berth password=${password} application_name=replica'\n`,
    );
    // The server runs as another user.
    const { uid, gid } = await stat(path.join(data, 'PG_VERSION'));
    for (const name of ['backup_label', 'standby.signal']) {
      await chown(path.join(data, name), uid, gid);
      await chmod(path.join(data, name), 0o600);
    }
    const replica = await makeServer(directory, address);
    const position = (await client.query<{ lsn: string }>('SELECT pg_current_wal_lsn() AS lsn')).rows[0]?.lsn;
    await until('the replica streams and has what the server has written', replicaPatienceMs, async () => {
      const { rows: found } = await client.query(
        `SELECT FROM pg_stat_replication WHERE state = 'streaming' AND replay_lsn >= '${position}'`,
      );
      return found.length === 1;
    });
    await replica.stop();
    return replica;
  } finally {
    await client.end();
  }
}
