import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chown, mkdir, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { postgresUser, type SystemUser } from './postgres-user.ts';
import { serverBinaries } from './server-binaries.ts';
import { isListening } from '../../lib/is-listening.ts';
import { exists } from '../../lib/exists.ts';
import { renameDurably, writeFileAtomically } from '../../lib/write-file-atomically.ts';

/** Berth's own Postgres server, for operators who provide none. */
export interface EmbeddedPostgres {
  /** Contains the password of the owner. */
  readonly connectionString: string;
  /** Starts the server if it does not run. */
  ensureRunning(): Promise<void>;
  stop(): Promise<void>;
}

export interface EmbeddedPostgresOptions {
  /** For data, password and a copy of the server's binaries. */
  readonly directory: string;
  /** For the Unix socket; the server listens on nothing else. At most 90 characters. */
  readonly socketDirectory: string;
  /** `use`: data of a former major version is served by the server that wrote it, if its binaries are kept. */
  readonly former?: 'use';
}

/** A path in sockaddr_un has at most 107 bytes (unix(7)); the socket's file name takes the rest. */
const maxSocketDirectoryLength = 90;

/**
 * Starts the server, and initialises it on the first call. A server outlives a broker that is killed: the next start
 * uses the one that runs.
 * @throws PostgresVersionError if the data is of another major version; Error with the output of `initdb` or `pg_ctl`.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  if (options.socketDirectory.length > maxSocketDirectoryLength) {
    throw new Error(
      `The folder for Postgres' socket, ${options.socketDirectory}, has a name longer than ${maxSocketDirectoryLength} characters: set BERTH_STATE_DIR to a shorter one.`,
    );
  }
  const { directory } = options;
  // Postgres refuses to run as root.
  const user = await postgresUser();
  const data = path.join(directory, 'data');
  const passwordFile = path.join(directory, 'password');
  await mkdir(directory, { recursive: true, mode: 0o755 });
  const binaries = await serverBinaries(directory, options.former);

  const run = (program: string, args: readonly string[]) =>
    runAs(user, path.join(binaries, 'bin', program), args);

  if (!(await exists(path.join(data, 'PG_VERSION')))) await initialise();

  /** Into another directory first, so that an interrupted attempt is not taken for a database. */
  async function initialise(): Promise<void> {
    const attempt = `${data}.new`;
    await rm(attempt, { recursive: true, force: true });
    await mkdir(attempt, { mode: 0o700 });
    await writeFileAtomically(passwordFile, `${randomBytes(24).toString('hex')}\n`, {
      ...(user !== undefined && { owner: user }),
    });
    if (user !== undefined) await chown(attempt, user.uid, user.gid);
    await run('initdb', [
      `--pgdata=${attempt}`,
      '--username=berth',
      `--pwfile=${passwordFile}`,
      '--auth=scram-sha-256',
      '--encoding=UTF8',
      '--locale=C',
    ]);
    // initdb has flushed the content.
    await renameDurably(attempt, data);
  }

  async function ensureRunning(): Promise<void> {
    if (await isListening(path.join(options.socketDirectory, '.s.PGSQL.5432'))) return;
    await removeStaleLock(data);
    await mkdir(options.socketDirectory, { recursive: true, mode: 0o755 });
    if (user !== undefined) await chown(options.socketDirectory, user.uid, user.gid);
    const settings = [
      `-c listen_addresses=`,
      `-c unix_socket_directories=${options.socketDirectory}`,
      `-c unix_socket_permissions=0777`,
      `-c max_connections=200`,
    ];
    await run('pg_ctl', [
      'start',
      '--wait',
      '--silent',
      `--pgdata=${data}`,
      `--log=${path.join(data, 'server.log')}`,
      `--options=${settings.join(' ')}`,
    ]);
  }

  await ensureRunning();
  const connectionString = await ownerUrl(directory, options.socketDirectory);
  return {
    connectionString,
    ensureRunning,
    async stop() {
      await run('pg_ctl', ['stop', '--wait', '--silent', '--mode=fast', `--pgdata=${data}`]);
      await rm(options.socketDirectory, { recursive: true, force: true });
    },
  };
}

/** The connection string of the owner of the tables, with the password. */
export async function ownerUrl(directory: string, socketDirectory: string): Promise<string> {
  const password = (await readFile(path.join(directory, 'password'), 'utf8')).trim();
  return `postgresql://berth:${password}@/postgres?host=${encodeURIComponent(socketDirectory)}`;
}

/**
 * Postgres takes any living process with the pid in its lock file for its server; after a reboot that can be any
 * process. The command line tells whether it is one. Postgres itself checks that no server uses its shared memory.
 */
async function removeStaleLock(data: string): Promise<void> {
  const lock = path.join(data, 'postmaster.pid');
  const pid = (await readFile(lock, 'utf8').catch(() => '')).split('\n')[0] ?? '';
  if (!/^\d+$/.test(pid)) return;
  const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  if (!command.includes(data)) await rm(lock, { force: true });
}

/** @throws Error with the program's output if it fails. */
function runAs(user: SystemUser | undefined, program: string, args: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      ...user,
      cwd: '/',
      env: { PATH: '/usr/bin:/bin', LC_ALL: 'C' },
      // No pipe for stdout: the server would inherit it, and the end of pg_ctl would never be noticed.
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let printed = '';
    child.stderr.on('data', (chunk: Buffer) => {
      if (printed.length < 4000) printed += chunk.toString('utf8');
    });
    child.on('error', reject);
    child.on('exit', (code, signal) => {
      if (code === 0) resolve();
      else reject(new Error(`${path.basename(program)} ended with ${signal ?? code}: ${printed.trim()}`));
    });
  });
}
