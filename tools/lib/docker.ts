import { type ChildProcessWithoutNullStreams, execFile, spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { buffer } from 'node:stream/consumers';
import { pack } from 'tar-stream';
import { parseCredentials, writeDirectory } from '../../src/cli/context.ts';
import { dockerEnvironment } from '../../src/config/docker-environment.ts';
import type { Credentials } from '../../src/http/osb/credentials-body.ts';

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** The real docker CLI with a binding's credentials, as `berth context` writes them. */
export interface Docker {
  /** The variables with which any Docker client uses the binding. `DOCKER_CONFIG` is a folder for this binding alone. */
  readonly environment: Readonly<Record<string, string>> & { readonly DOCKER_CONFIG: string };
  run(args: readonly string[], input?: string | Buffer): Promise<Outcome>;
  /** The same on a terminal, for commands such as `docker exec -it`. */
  onTerminal(command: string, input: string): Promise<Outcome>;
  /** Starts a command that keeps running, such as `logs -f`. */
  follow(args: readonly string[]): ChildProcessWithoutNullStreams;
  dispose(): Promise<void>;
}

/** A build in an emulated guest on a busy node takes minutes. */
const timeoutMs = 300_000;

export async function dockerFor(credentials: Credentials): Promise<Docker> {
  const directory = await mkdtemp(path.join(tmpdir(), 'berth-docker-'));
  const certificates = path.join(directory, 'certificates');
  try {
    await writeDirectory(parseCredentials(JSON.stringify(credentials)), certificates, { force: false });
  } catch (error) {
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
  const env = {
    ...dockerEnvironment(),
    // Ignore the user's own docker configuration.
    HOME: directory,
    DOCKER_CONFIG: directory,
    DOCKER_HOST: credentials.docker_host,
    DOCKER_TLS_VERIFY: '1',
    DOCKER_CERT_PATH: certificates,
    DOCKER_BUILDKIT: '0',
  };

  return {
    environment: env,
    run: (args, input) => runClient('docker', args, env, input),
    onTerminal: (command, input) =>
      runClient('script', ['-q', '-e', '-c', `docker ${command}`, '/dev/null'], env, input),
    follow: (args) => spawn('docker', args, { env }),
    dispose: () => rm(directory, { recursive: true, force: true }),
  };
}

/** Runs a Docker client to its end, for at most as long as a build takes; then it is killed. */
export function runClient(
  program: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  input: string | Buffer = '',
): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = execFile(
      program,
      [...args],
      { env, timeout: timeoutMs, killSignal: 'SIGKILL', maxBuffer: 256 * 1024 * 1024, encoding: 'latin1' },
      (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
        resolve({ code, stdout, stderr });
      },
    );
    // A command may end without reading its input; that is not an error.
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(input);
  });
}

/** A tar of a tree that contains only busybox, to be imported as an image. */
export async function busyboxTree(): Promise<Buffer> {
  const tar = pack();
  for (const name of ['bin', 'tmp', 'www']) tar.entry({ name, type: 'directory', mode: 0o755 });
  tar.entry({ name: 'bin/busybox', mode: 0o755 }, await readFile('/bin/busybox'));
  for (const name of [
    'sh',
    'cat',
    'echo',
    'sleep',
    'httpd',
    'nc',
    'wget',
    'head',
    'wc',
    'id',
    'ip',
    'tty',
    'md5sum',
    'ls',
  ]) {
    tar.entry({ name: `bin/${name}`, type: 'symlink', linkname: 'busybox' });
  }
  tar.entry({ name: 'www/index.html' }, 'hello from a container\n');
  tar.finalize();
  return buffer(tar);
}
