import { execFile } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import {
  environmentFile,
  expiryWarning,
  importDockerContext,
  parseCredentials,
  writeDirectory,
} from '../../src/cli/context.ts';
import type { Credentials } from '../../src/http/osb/credentials-body.ts';
import { makeBindings } from './support/make-bindings.ts';

let mine: Credentials;
let other: Credentials;
let home: string;

const expiresAt = new Date(Date.now() + 3_600_000);

beforeAll(async () => {
  [mine, other] = await makeBindings(expiresAt);
});
beforeEach(async () => {
  home = await mkdtemp(path.join(tmpdir(), 'berth-context-test-'));
});
afterEach(async () => {
  await rm(home, { recursive: true });
});

const parse = (value: unknown) => parseCredentials(JSON.stringify(value));

describe('an expired certificate', () => {
  it('credentials: an expired certificate causes a warning', () => {
    const credentials = parse(mine);
    expect(expiryWarning(credentials, new Date())).toBeUndefined();
    expect(expiryWarning(credentials, new Date(expiresAt.getTime() + 1000))).toContain(
      'cf create-service-key',
    );
  });
});

describe('the directory for DOCKER_CERT_PATH', () => {
  const modeOf = async (file: string) => ((await stat(file)).mode & 0o777).toString(8);

  it('directory: contains the files of a Docker client, readable by their owner only', async () => {
    const directory = path.join(home, 'deep', 'er');
    expect(await writeDirectory(parse(mine), directory, { force: false })).toEqual([]);
    expect(await modeOf(directory)).toBe('700');
    expect((await readdir(directory)).sort()).toEqual(['ca.pem', 'cert.pem', 'env', 'key.pem']);
    for (const name of await readdir(directory)) expect(await modeOf(path.join(directory, name))).toBe('600');
    expect(await readFile(path.join(directory, 'key.pem'), 'utf8')).toBe(mine.key);
    expect(await readFile(path.join(directory, 'cert.pem'), 'utf8')).toBe(mine.cert);
    expect(await readFile(path.join(directory, 'ca.pem'), 'utf8')).toBe(mine.ca);
  });

  it('directory: its env file is safe to source, whatever the name of the directory', async () => {
    const directory = path.join(home, `it's $(touch ${home}/pwned) \`x\` "y" \\`);
    await writeDirectory(parse(mine), directory, { force: false });
    const { stdout } = await promisify(execFile)(
      'sh',
      [
        '-c',
        '. "$1/env" && printf "%s|%s|%s" "$DOCKER_HOST" "$DOCKER_TLS_VERIFY" "$DOCKER_CERT_PATH"',
        'sh',
        directory,
      ],
      { env: { PATH: process.env['PATH'] } },
    );
    expect(stdout).toBe(`tcp://berth.example.com:2376|1|${directory}`);
    expect(await readdir(home)).toHaveLength(1);
  });

  it('directory: is not overwritten with another binding without --force', async () => {
    const directory = path.join(home, 'certs');
    await writeDirectory(parse(mine), directory, { force: false });
    await writeDirectory(parse(mine), directory, { force: false });
    const refused = writeDirectory(parse(other), directory, { force: false });
    await expect(refused).rejects.toThrow(/cert\.pem, key\.pem: .*--force/);
    expect(await readFile(path.join(directory, 'key.pem'), 'utf8')).toBe(mine.key);
    await writeDirectory(parse(other), directory, { force: true });
    expect(await readFile(path.join(directory, 'key.pem'), 'utf8')).toBe(other.key);
  });

  it('directory: restricts the mode of existing files, and warns if other users can access it', async () => {
    const directory = path.join(home, 'open');
    await mkdir(directory);
    await chmod(directory, 0o755);
    await writeFile(path.join(directory, 'key.pem'), mine.key, { mode: 0o644 });
    const warnings = await writeDirectory(parse(mine), directory, { force: false });
    expect(warnings.join()).toContain('chmod 700');
    expect(await modeOf(path.join(directory, 'key.pem'))).toBe('600');
  });

  it('directory: an error names the path if it is a file', async () => {
    const file = path.join(home, 'file');
    await writeFile(file, '');
    await expect(writeDirectory(parse(mine), file, { force: false })).rejects.toThrow(
      `${file} can't be written`,
    );
  });

  it('directory: is quoted in the env file', () => {
    expect(environmentFile('tcp://h:1', "/a'b")).toContain(`DOCKER_CERT_PATH='/a'\\''b'`);
  });
});

describe('a docker context', () => {
  beforeEach(() => {
    vi.stubEnv('TMPDIR', home);
  });
  afterEach(async () => {
    vi.unstubAllEnvs();
    const left = (await readdir(home)).filter((name) => name.startsWith('berth-context-'));
    expect(left, 'files with keys').toEqual([]);
  });

  const environment = () => ({ PATH: process.env['PATH'] ?? '', HOME: home });
  const docker = (...args: string[]) => promisify(execFile)('docker', args, { env: environment() });
  const keyOf = async (name: string): Promise<string> => {
    const { stdout } = await docker('context', 'inspect', name, '--format', '{{.Storage.TLSPath}}');
    return readFile(path.join(stdout.trim(), 'docker', 'key.pem'), 'utf8');
  };

  it('docker context: is created by the docker CLI, with the certificates', async () => {
    await importDockerContext(parse(mine), 'my-host', { force: false, environment: environment() });
    const { stdout } = await docker(
      'context',
      'inspect',
      'my-host',
      '--format',
      '{{.Endpoints.docker.Host}}',
    );
    expect(stdout.trim()).toBe('tcp://berth.example.com:2376');
    expect(await keyOf('my-host')).toBe(mine.key);
  });

  it('docker context: is not replaced without --force', async () => {
    await importDockerContext(parse(mine), 'my-host', { force: false, environment: environment() });
    const again = importDockerContext(parse(other), 'my-host', { force: false, environment: environment() });
    await expect(again).rejects.toThrow(/my-host already/);
    expect(await keyOf('my-host')).toBe(mine.key);
    await importDockerContext(parse(other), 'my-host', { force: true, environment: environment() });
    expect(await keyOf('my-host')).toBe(other.key);
  });

  it.each(['', 'x', '--help', 'a b', '../up', 'a'.repeat(129)])(
    'docker context: the name %j is refused',
    async (name) => {
      const made = importDockerContext(parse(mine), name, { force: false, environment: environment() });
      await expect(made).rejects.toThrow(/--import/);
    },
  );

  it('docker context: an error says that docker is missing, or contains its error output', async () => {
    const without = importDockerContext(parse(mine), 'my-host', {
      force: false,
      environment: { PATH: home },
    });
    await expect(without).rejects.toThrow(/install a Docker client/);
    await writeFile(path.join(home, 'docker'), '#!/bin/sh\necho "the store is full" >&2; exit 1\n', {
      mode: 0o755,
    });
    const failing = { PATH: `${home}:/usr/bin:/bin`, HOME: home };
    const failed = importDockerContext(parse(mine), 'my-host', { force: false, environment: failing });
    await expect(failed).rejects.toThrow(/the store is full/);
  });
});
