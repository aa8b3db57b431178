import { execFile } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import {
  ContextError,
  environmentFile,
  expiryWarning,
  importDockerContext,
  inputLimit,
  parseCredentials,
  readInput,
  writeDirectory,
} from '../../src/cli/context.ts';
import { renderCredentials, type Credentials } from '../../src/http/osb/credentials-body.ts';
import { type CertificateAuthority, createCertificateAuthority } from '../../src/certificates/ca.ts';
import { issueClientCertificate } from '../../src/certificates/client-certificate.ts';

let ca: CertificateAuthority;
let mine: Credentials;
let other: Credentials;
let home: string;

const expiresAt = new Date(Date.now() + 3_600_000);

const makeBinding = async (): Promise<Credentials> =>
  renderCredentials({
    certificate: await issueClientCertificate(ca, { commonName: 'binding', notAfter: expiresAt }),
    serverCaPem: ca.certificatePem,
    address: { host: 'berth.example.com', gatewayPort: 2376 },
    publishedPorts: { first: 20_010, count: 10 },
  });

beforeAll(async () => {
  ca = await createCertificateAuthority({ commonName: 'test', validForDays: 1 });
  [mine, other] = [await makeBinding(), await makeBinding()];
});
beforeEach(async () => {
  home = await mkdtemp(path.join(tmpdir(), 'berth-context-test-'));
});
afterEach(async () => {
  await rm(home, { recursive: true });
});

const parse = (value: unknown) => parseCredentials(JSON.stringify(value));

/** The message of the ContextError that `act` throws. */
const refusal = (act: () => unknown): string => {
  try {
    act();
  } catch (error) {
    expect(error).toBeInstanceOf(ContextError);
    return String(error);
  }
  throw new Error('no ContextError was thrown');
};

describe('the credentials in a service key', () => {
  it('credentials: are found bare, wrapped, and below the heading of cf service-key', () => {
    const wanted = {
      docker_host: 'tcp://berth.example.com:2376',
      ca: mine.ca,
      cert: mine.cert,
      key: mine.key,
    };
    expect(parse(mine)).toMatchObject(wanted);
    expect(parse({ credentials: mine })).toMatchObject(wanted);
    const heading = 'Getting key me for service instance my-host as admin...\n\n';
    expect(parseCredentials(`${heading}${JSON.stringify(mine, null, 1)}\n`)).toMatchObject(wanted);
    expect(parseCredentials(`${heading}${JSON.stringify({ credentials: mine }, null, 2)}\n\n`)).toMatchObject(
      wanted,
    );
  });

  it('credentials: an error names every missing or invalid field', () => {
    const missing = refusal(() => parse({ credentials: { host: 'x' } }));
    for (const field of ['docker_host', 'ca', 'cert', 'key'])
      expect(missing).toContain(`${field} is missing`);
    expect(missing).toContain('cf service-key');
    const wrong = refusal(() =>
      parse({ ...mine, docker_host: 7, ca: mine.key, key: '-----BEGIN SECRET-----' }),
    );
    expect(wrong).toContain('docker_host is missing');
    expect(wrong).toContain("ca can't be used");
    expect(wrong).toContain("key can't be used");
    expect(wrong).not.toContain('SECRET');
    expect(wrong).not.toContain('cert is');
  });

  it.each([
    'https://berth.example.com:2376',
    'tcp://berth.example.com',
    'tcp://berth.example.com:0',
    'tcp://berth.example.com:70000',
    'tcp://a,ca=/etc/passwd:2376',
    'tcp://a:2376\nexport X=1',
  ])('credentials: are refused if docker_host is %j', (address) => {
    expect(refusal(() => parse({ ...mine, docker_host: address }))).toContain("docker_host can't be used");
  });

  it('credentials: may have an IPv6 address', () => {
    expect(parse({ ...mine, docker_host: 'tcp://[fd00::1]:2376' }).docker_host).toBe('tcp://[fd00::1]:2376');
  });

  it('credentials: are refused if key and certificate are from two bindings', () => {
    expect(refusal(() => parse({ ...mine, key: other.key }))).toContain('do not belong together');
  });

  it.each(['', 'FAILED\nService key me does not exist', '[]', '{"key": "-----BEGIN PRIVATE', '{]}'])(
    'credentials: are refused if the input is %j, without quoting it',
    (text) => {
      const message = refusal(() => parseCredentials(text));
      expect(message).toContain('cf service-key');
      expect(message).not.toContain('PRIVATE');
    },
  );

  it('credentials: are refused if the input exceeds the limit', async () => {
    const input = function* (length: number) {
      for (let sent = 0; sent < length; sent += 1024) yield Buffer.alloc(1024, 'x');
    };
    const stream = (length: number) => ({
      async *[Symbol.asyncIterator]() {
        await Promise.resolve();
        yield* input(length);
      },
    });
    expect(await readInput(stream(inputLimit))).toHaveLength(inputLimit);
    await expect(readInput(stream(inputLimit + 1))).rejects.toThrow(ContextError);
  });

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
