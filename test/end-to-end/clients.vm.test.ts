import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import Dockerode from 'dockerode';
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFailed } from 'vitest';
import { busyboxTree, type Docker, dockerFor, type Outcome } from '../../tools/lib/docker.ts';
import type { Credentials } from '../../src/http/osb/credentials-body.ts';
import { type BrokerProcess, makeBrokerProcess } from '../support/broker-process.ts';
import { eventually } from '../support/eventually.ts';
import { clientPackages } from './support/client-packages.ts';
import { type Clients, clientsFor } from './support/clients.ts';
import { reaperEntrypoint, reaperTree } from './support/reaper-image.ts';

const image = 'busybox:test';
const reaperImage = 'reaper:test';
const page = 'hello from a container\n';
const web = ['/bin/httpd', '-f', '-p', '80', '-h', '/www'];
const support = (name: string) => path.join(import.meta.dirname, 'support', name);

/** The clients that people come with, on one host. docs/clients.md lists them; a client that changes there is tried here. */
describe('clients', { timeout: 1_200_000 }, () => {
  let broker: BrokerProcess;
  let credentials: Credentials;
  let docker: Docker;
  let clients: Clients;
  let folder: string;
  const cleanUp: (() => Promise<void>)[] = [];

  const succeeds = (...args: readonly string[]) => clients.succeeds('docker', args);
  const containersOf = async (label: string) =>
    (await succeeds('ps', '--all', '--quiet', '--filter', `label=${label}`)).split('\n').slice(0, -1);
  const pageAt = async (host: string, port: number) =>
    (await fetch(`http://${host}:${port}/`, { signal: AbortSignal.timeout(60_000) })).text();

  beforeAll(async () => {
    const unpacked = await clientPackages();
    folder = await mkdtemp(path.join(tmpdir(), 'berth-clients-'));
    cleanUp.push(() => rm(folder, { recursive: true, force: true }));
    broker = await makeBrokerProcess(3);
    cleanUp.push(() => broker.dispose());
    await broker.start();
    expect((await broker.create('host', 'org')).status).toBeLessThan(300);
    ({ credentials } = (await broker.bind('host', 'binding')).body);
    docker = await dockerFor(credentials);
    cleanUp.push(() => docker.dispose());
    clients = await clientsFor(docker, unpacked);
    await clients.succeeds('docker', ['import', '-', image], await busyboxTree());
    await succeeds('run', '-d', '--name', 'web', '--network', 'none', image, ...web);
  }, 1_200_000);

  beforeEach(() => {
    const from = broker.output().length;
    onTestFailed(() => {
      console.error(`The broker has printed during this test:\n${broker.output().slice(from)}`);
    });
  });

  afterAll(async () => {
    for (const act of cleanUp.reverse()) await act();
  }, 300_000);

  it.each([
    ['of Debian 13', (...given: Parameters<Docker['run']>) => clients.run('docker', ...given)],
    ['of the node', (...given: Parameters<Docker['run']>) => docker.run(...given)],
  ] satisfies [string, Docker['run']][])('docker CLI %s: runs, executes and copies', async (_name, run) => {
    const succeeded = (outcome: Outcome) => {
      expect(outcome.code, outcome.stderr).toBe(0);
      return outcome.stdout;
    };
    const count = ['run', '--rm', '-i', '--network', 'none', image, '/bin/wc', '-c'];
    expect(succeeded(await run(count, Buffer.alloc(100_000))).trim()).toBe('100000');
    expect(succeeded(await run(['exec', '-i', 'web', '/bin/cat'], 'input'))).toBe('input');
    expect(succeeded(await run(['cp', 'web:/www/index.html', '-']))).toContain(page);
  });

  it('buildx: builds with a heredoc, a cache mount and a secret mount, and writes the result to the client', async () => {
    const context = path.join(folder, 'build');
    const secret = randomBytes(32);
    await mkdir(context);
    await writeFile(path.join(folder, 'token'), secret);
    await writeFile(
      path.join(context, 'Dockerfile'),
      `FROM ${image} AS made
ARG run
RUN --mount=type=cache,target=/cache --mount=type=secret,id=token,required=true <<END
set -e
echo $run >>/cache/runs
cat /cache/runs >/www/runs
md5sum </run/secrets/token >/www/token
END
FROM scratch
COPY --from=made /www /
`,
    );
    const build = (run: string, ...options: string[]) =>
      clients.run('docker', ['buildx', 'build', '--build-arg', `run=${run}`, ...options, context]);
    const withSecret = async (run: string) => {
      const result = path.join(folder, run);
      const options = ['--secret', `id=token,src=${path.join(folder, 'token')}`];
      const { code, stderr } = await build(run, ...options, '--output', `type=local,dest=${result}`);
      expect(code, stderr).toBe(0);
      return result;
    };

    const first = await withSecret('first');
    expect((await readdir(first)).sort()).toEqual(['index.html', 'runs', 'token']);
    expect(await readFile(path.join(first, 'token'), 'utf8')).toBe(
      `${createHash('md5').update(secret).digest('hex')}  -\n`,
    );
    const second = await withSecret('second');
    expect(await readFile(path.join(second, 'runs'), 'utf8')).toBe('first\nsecond\n');

    const without = await build('third');
    expect(without.code).not.toBe(0);
    expect(without.stderr).toContain('token: not found');
  });

  it('compose: builds, and scales a service over a range of ports that all answer', async () => {
    const project = path.join(folder, 'shop');
    await mkdir(project);
    await writeFile(path.join(project, 'index.html'), 'made by compose\n');
    await writeFile(path.join(project, 'Dockerfile'), `FROM ${image}\nCOPY index.html /www/\n`);
    await writeFile(
      path.join(project, 'compose.yaml'),
      JSON.stringify({
        services: { web: { build: '.', command: web, ports: [`${credentials.published_ports}:80`] } },
      }),
    );
    const compose = (...args: string[]) => succeeds('compose', '--project-directory', project, ...args);

    await compose('up', '--detach', '--build', '--scale', 'web=3');
    const ports = new Set<number>();
    for (const index of ['1', '2', '3']) {
      const port = Number((await compose('port', '--index', index, 'web', '80')).trim().split(':').at(-1));
      expect(await pageAt(credentials.host, port)).toBe('made by compose\n');
      ports.add(port);
    }
    expect(ports.size).toBe(3);
    await compose('down', '--timeout', '1');
    expect(await containersOf('com.docker.compose.project=shop')).toEqual([]);
  });

  // The real image, testcontainers/ryuk, can't be pulled without internet.
  it('Testcontainers for Node: reaches its container, and a substitute for ryuk removes it after the client has been killed', async () => {
    const change = ['--change', reaperEntrypoint];
    await clients.succeeds('docker', ['import', ...change, '-', reaperImage], await reaperTree());
    const client = spawn(process.execPath, [support('testcontainers-client.mjs'), image], {
      env: { ...clients.environment, RYUK_CONTAINER_IMAGE: reaperImage },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const complaints = text(client.stderr);
    const timer = setTimeout(() => client.kill('SIGKILL'), 600_000);
    cleanUp.push(async () => {
      clearTimeout(timer);
      client.kill('SIGKILL');
      await complaints;
    });
    const ended = once(client, 'exit');
    const [line] = (await Promise.race([once(createInterface(client.stdout), 'line'), ended])) as [unknown];
    expect(line, typeof line === 'string' ? '' : await complaints).toBeTypeOf('string');
    const { host, port, output } = JSON.parse(String(line)) as { host: string; port: number; output: string };
    expect(output).toBe('executed\n');
    expect(await pageAt(host, port)).toBe(page);

    const left = () => containersOf('org.testcontainers=true');
    expect((await left()).length).toBe(2);
    client.kill('SIGKILL');
    await ended;
    await eventually('both containers are removed', async () => (await left()).length === 0, {
      deadlineMs: 60_000,
      everyMs: 1_000,
    });
  });

  it('dockerode: runs with input to its end, executes, and follows events', async () => {
    const { hostname, port } = new URL(credentials.docker_host);
    const { ca, cert, key } = credentials;
    const engine = new Dockerode({ host: hostname, port, ca, cert, key });
    const events = await engine.getEvents({ filters: { event: ['die'], type: ['container'] } });
    const container = await engine.createContainer({
      Image: image,
      Cmd: ['/bin/wc', '-c'],
      OpenStdin: true,
      StdinOnce: true,
      HostConfig: { NetworkMode: 'none', AutoRemove: true },
    });
    const attached = await container.attach({ stream: true, hijack: true, stdin: true, stdout: true });
    await container.start();
    attached.end(Buffer.alloc(100_000));
    expect((await demultiplexed(engine, attached)).trim()).toBe('100000');
    const [event] = (await once(createInterface(events), 'line')) as [string];
    expect(JSON.parse(event)).toMatchObject({ id: container.id, Action: 'die' });
    (events as NodeJS.ReadableStream & { destroy(): void }).destroy();

    const command = { Cmd: ['/bin/cat'], AttachStdin: true, AttachStdout: true };
    const exec = await engine.getContainer('web').exec(command);
    const stream = await exec.start({ hijack: true, stdin: true });
    stream.end('input');
    expect(await demultiplexed(engine, stream)).toBe('input');
    expect((await exec.inspect()).ExitCode).toBe(0);
  });

  it('docker-py: runs, executes with input, copies and builds', async () => {
    const script = support('docker-py-client.py');
    const seen = JSON.parse(
      await clients.succeeds('/usr/bin/python3', ['-B', script, image, 'web']),
    ) as object;
    expect(seen).toMatchObject({
      run: 'run\n',
      exec: [0, page],
      archive: 'from docker-py\n',
      label: 'docker-py',
      stdin: 'echoed\n',
    });
  });
});

/** What a container without a terminal has printed, when the stream has ended. */
async function demultiplexed(engine: Dockerode, stream: NodeJS.ReadableStream): Promise<string> {
  const output = new PassThrough();
  (engine.modem as { demuxStream(...streams: unknown[]): void }).demuxStream(stream, output, output);
  stream.once('end', () => output.end());
  return text(output);
}
