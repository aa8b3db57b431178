import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { PostgresVersionError, serverBinaries } from '../../src/postgres/server/server-binaries.ts';

it('embedded Postgres: data of a former major version is read by its own server, if that is kept', async () => {
  const directory = await mkdtemp(path.join(tmpdir(), 'berth-server-'));
  onTestFinished(() => rm(directory, { recursive: true }));
  await mkdir(path.join(directory, 'data'));
  await writeFile(path.join(directory, 'data', 'PG_VERSION'), '16\n');
  await expect(serverBinaries(directory, 'use')).rejects.toThrow('the former server is not kept');
  await mkdir(path.join(directory, 'server-16.9.0'));
  await mkdir(path.join(directory, 'server-17.1.0'));
  expect(await serverBinaries(directory, 'use')).toBe(path.join(directory, 'server-16.9.0'));
  // A broker does not run on it.
  await expect(serverBinaries(directory, undefined)).rejects.toThrow(PostgresVersionError);
});
