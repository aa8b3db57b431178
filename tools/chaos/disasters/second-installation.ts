import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import { freePorts } from '../free-ports.ts';
import type { ChaosInstallation } from '../installation.ts';
import type { Disaster } from './disaster.ts';

const endsWithinMs = 120_000;
const directories = ['new', 'of another installation', 'a copy'] as const;
/** What an operator may start by mistake; a copy of the directory is allowed to an api and a gateway of a further node. */
const programs = {
  new: ['all', 'api', 'gateway', 'worker'],
  'of another installation': ['all', 'api', 'gateway', 'worker'],
  'a copy': ['all', 'worker'],
} as const;

/** A second installation is started on the same database: it is refused, and has changed nothing. */
export const secondInstallation: Disaster = {
  name: 'second-installation',
  async strike({ site, random }) {
    const kind = random.pick(directories);
    const program = random.pick(programs[kind]);
    const directory = await mkdtemp('/var/tmp/berth-chaos-second-');
    try {
      await fill(directory, kind, site.settings.stateDirectory);
      const before = await fingerprint(site);
      const { code, output } = await start(site, program, directory);
      if (code !== 1 || !output.includes('Nothing was changed'))
        throw new Error(`"${program}" with a directory that is ${kind} ended with ${code}: ${output}`);
      if (!isDeepStrictEqual(await fingerprint(site), before))
        throw new Error(`"${program}" with a directory that is ${kind} has changed the database`);
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  },
};

async function fill(directory: string, kind: (typeof directories)[number], original: string): Promise<void> {
  if (kind === 'of another installation')
    await writeFile(path.join(directory, 'installation'), `${randomUUID()}\n`);
  if (kind !== 'a copy') return;
  for (const name of ['installation', 'site', 'credentials.json', 'master.key'])
    await copyFile(path.join(original, name), path.join(directory, name));
}

/** Runs one process, or all, until it ends. */
async function start(
  site: ChaosInstallation,
  program: (typeof programs)['new'][number],
  directory: string,
): Promise<{ code: number | null; output: string }> {
  const [a = 0, b = 0, c = 0] = await freePorts(3);
  const url =
    program === 'all'
      ? { DATABASE_URL: site.postgres.connectionString }
      : { DATABASE_URL_FILE: site.urlFiles[program] };
  const main = fileURLToPath(new URL('../../../src/main.js', import.meta.url));
  const child = spawn(process.execPath, program === 'all' ? [main] : [main, program], {
    env: {
      ...{ ...site.environment, ...url, BERTH_STATE_DIR: directory },
      ...{ BERTH_PORT: String(a), BERTH_MGMT_PORT: String(b), BERTH_GATEWAY_PORT: String(c) },
    },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: endsWithinMs,
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => (output = (output + text).slice(-4_000)));
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { code, output };
}

/** What a start could have changed while no operation is running. */
async function fingerprint(site: ChaosInstallation): Promise<unknown> {
  const rows = async (sql: string) => (await site.database.raw<{ rows: unknown[] }>(sql)).rows;
  return {
    installation: await rows('SELECT id, site FROM installation'),
    roles: await rows(`SELECT rolname, rolpassword FROM pg_authid ORDER BY 1`),
    migrations: await rows('SELECT name FROM knex_migrations ORDER BY id'),
    tables: await rows(`SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1`),
    instances: await rows('SELECT id, state FROM instances ORDER BY id'),
    bindings: await rows('SELECT id, state FROM bindings ORDER BY id'),
    hosts: await rows('SELECT id, instance_id FROM hosts WHERE instance_id IS NOT NULL ORDER BY id'),
  };
}
