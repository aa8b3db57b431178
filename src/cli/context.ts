import { execFile } from 'node:child_process';
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { writeFileAtomically } from '../lib/write-file-atomically.ts';
import { ContextError, findCredentials, obtain } from './credentials-input.ts';

/** The part of a binding's credentials that a Docker client needs, validated. */
export interface DockerCredentials {
  readonly docker_host: string;
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  /** Expiry of the client certificate, read from the certificate. */
  readonly expiresAt: Date;
}

/**
 * Finds a binding's credentials in a text, and validates them.
 * @param instance the name to choose by if the text has several.
 * @throws ContextError that names every missing or invalid field.
 */
export function parseCredentials(text: string, instance?: string): DockerCredentials {
  const fields = findCredentials(text, instance);
  const problems: string[] = [];
  const read = <T>(
    name: keyof DockerCredentials,
    wanted: string,
    parse: (value: string) => T,
  ): T | undefined => {
    const value = fields[name];
    try {
      if (typeof value === 'string' && value !== '') return parse(value);
      problems.push(`${name} is missing or not text: it must be ${wanted}`);
    } catch {
      // The error is dropped: it may quote the value.
      problems.push(`${name} can't be used: it must be ${wanted}`);
    }
    return undefined;
  };

  const dockerHost = read('docker_host', 'an address such as tcp://berth.example.com:2376', parseDockerHost);
  const ca = read('ca', 'a certificate (PEM)', parseCertificate);
  const cert = read('cert', 'a certificate (PEM)', parseCertificate);
  const key = read('key', 'a private key without a passphrase (PEM)', parsePrivateKey);
  if (cert !== undefined && key !== undefined && !cert.parsed.checkPrivateKey(key.parsed)) {
    problems.push('cert and key do not belong together: use both from the same service key');
  }
  if (
    dockerHost === undefined ||
    ca === undefined ||
    cert === undefined ||
    key === undefined ||
    problems.length > 0
  ) {
    throw new ContextError(`These credentials can't be used:\n  - ${problems.join('\n  - ')}\n${obtain}`);
  }
  return {
    docker_host: dockerHost,
    ca: ca.pem,
    cert: cert.pem,
    key: key.pem,
    expiresAt: new Date(cert.parsed.validTo),
  };
}

/** A warning if the certificate has expired; undefined if it is still valid. */
export function expiryWarning({ expiresAt }: DockerCredentials, now: Date): string | undefined {
  if (expiresAt > now) return undefined;
  return `The certificate expired at ${expiresAt.toISOString()} and the gateway will refuse it: create a new service key (cf create-service-key).`;
}

/** Lines for a shell to source, so that `docker` uses the certificates in a directory. */
export function environmentFile(dockerHost: string, directory: string): string {
  const variables = { DOCKER_HOST: dockerHost, DOCKER_TLS_VERIFY: '1', DOCKER_CERT_PATH: directory };
  return Object.entries(variables)
    .map(([name, value]) => `export ${name}=${shellQuote(value)}\n`)
    .join('');
}

/** A value as one word for any POSIX shell (POSIX.1-2017, Shell Command Language, 2.2.2). */
export function shellQuote(value: string): string {
  return `'${value.replaceAll("'", `'\\''`)}'`;
}

/**
 * Writes ca.pem, cert.pem and key.pem, the names that Docker clients expect in DOCKER_CERT_PATH, and `env` for a
 * shell to source. All are readable by their owner only.
 * @param options.force overwrite files of another binding.
 * @returns warnings, for people.
 * @throws ContextError if the directory contains another binding's files or can't be written.
 */
export async function writeDirectory(
  credentials: DockerCredentials,
  directory: string,
  options: { force: boolean },
): Promise<string[]> {
  const absolute = path.resolve(directory);
  const files = {
    'ca.pem': credentials.ca,
    'cert.pem': credentials.cert,
    'key.pem': credentials.key,
    env: environmentFile(credentials.docker_host, absolute),
  };
  try {
    await mkdir(absolute, { recursive: true, mode: 0o700 });
    const others = [];
    for (const [name, content] of Object.entries(files)) {
      const existing = await readIfThere(path.join(absolute, name));
      if (existing !== undefined && existing !== content) others.push(name);
    }
    if (others.length > 0 && !options.force) {
      throw new ContextError(
        `${absolute} has different content in ${others.join(', ')}: name another --directory, or overwrite with --force.`,
      );
    }
    await replaceFiles(absolute, files);
    const open = ((await stat(absolute)).mode & 0o077) !== 0;
    return open
      ? [`Other users can access ${absolute}, though not read the files in it: restrict it with chmod 700.`]
      : [];
  } catch (error) {
    if (error instanceof ContextError) throw error;
    throw new ContextError(`${absolute} can't be written: ${String(error)}`, { cause: error });
  }
}

/**
 * Creates a docker context with the docker CLI, which copies the certificates into its own store. The key is
 * passed in a file that only its owner can read and that is removed afterwards.
 * @param options.force replace an existing context of that name.
 * @param options.environment the docker CLI's whole environment: PATH, HOME, and DOCKER_CONFIG if it is set.
 * @throws ContextError with the docker CLI's error output.
 */
export async function importDockerContext(
  credentials: DockerCredentials,
  name: string,
  options: { force: boolean; environment: Readonly<Record<string, string>> },
): Promise<void> {
  // The docker CLI's own rule; it also prevents a name that the CLI would read as an option.
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.+-]{1,127}$/.test(name)) {
    throw new ContextError(
      `--import ${JSON.stringify(name.slice(0, 130))}: the name of a docker context is 2 to 128 letters, digits and "_.+-", and starts with a letter or digit.`,
    );
  }
  const exists = await docker(['context', 'inspect', name], options.environment).then(
    () => true,
    (error: unknown) => {
      if (isMissingCommand(error)) {
        throw new ContextError(
          'The docker command is not on PATH: install a Docker client, or use --directory.',
          {
            cause: error,
          },
        );
      }
      return false;
    },
  );
  if (exists && !options.force) {
    throw new ContextError(
      `The docker context ${name} already exists: choose another name, or replace it with --force.`,
    );
  }
  const directory = await mkdtemp(path.join(tmpdir(), 'berth-context-'));
  try {
    const files = { ca: credentials.ca, cert: credentials.cert, key: credentials.key };
    await replaceFiles(directory, files);
    const paths = Object.keys(files).map((file) => `${file}=${path.join(directory, file)}`);
    const endpoint = [`host=${credentials.docker_host}`, ...paths].join(',');
    await docker(['context', exists ? 'update' : 'create', name, '--docker', endpoint], options.environment);
  } catch (cause) {
    throw new ContextError(`Creating the docker context ${name} failed: ${errorOutput(cause)}`, { cause });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function parseDockerHost(value: string): string {
  const [, port] = /^tcp:\/\/(?:\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9.-]+):(\d{1,5})$/.exec(value) ?? [];
  if (port === undefined || Number(port) < 1 || Number(port) > 65_535) throw new Error('not tcp://HOST:PORT');
  return value;
}

function parseCertificate(pem: string): { pem: string; parsed: X509Certificate } {
  return { pem, parsed: new X509Certificate(pem) };
}

function parsePrivateKey(pem: string): { pem: string; parsed: KeyObject } {
  return { pem, parsed: createPrivateKey(pem) };
}

async function readIfThere(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined;
    throw error;
  }
}

/** Each file is replaced whole, and never readable by others, not even for a moment. */
async function replaceFiles(directory: string, files: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    await writeFileAtomically(path.join(directory, name), content);
  }
}

function docker(args: readonly string[], environment: Readonly<Record<string, string>>) {
  return promisify(execFile)('docker', args, { env: { ...environment }, timeout: 30_000 });
}

const hasCode = (error: unknown, code: string) =>
  error instanceof Error && 'code' in error && error.code === code;

const isMissingCommand = (error: unknown) => hasCode(error, 'ENOENT');

function errorOutput(error: unknown): string {
  const output = error instanceof Error && 'stderr' in error ? String(error.stderr).trim() : '';
  return output === '' ? String(error) : output;
}
