import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { Agent, get } from 'node:https';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { busyboxTree, type Docker, dockerFor } from '../../tools/lib/docker.ts';
import { type BrokerProcess, makeBrokerProcess } from '../support/broker-process.ts';
import { eventually } from '../support/eventually.ts';
import { powerOfHost, sleepNow } from './support/sleep.ts';

/**
 * A guest whose clock was not set would be behind by at least this time; and the kernel ends a connection without an answer to
 * its keep-alive probes earlier. Milliseconds.
 */
const frozenForMs = 45_000;

/** The idle policy on real VMs. */
describe('idle hosts', { timeout: 2_400_000 }, () => {
  let broker: BrokerProcess;
  let busy: Docker;
  let idle: Docker;
  const cleanUp: (() => Promise<void>)[] = [];

  beforeAll(async () => {
    broker = await makeBrokerProcess(4, {
      BERTH_IDLE_AFTER_SECONDS: '5',
      BERTH_SUSPEND_AFTER_SECONDS: '3600',
    });
    cleanUp.push(() => broker.dispose());
    await broker.start();
  }, 1_200_000);

  afterAll(async () => {
    for (const act of cleanUp.reverse()) await act();
  }, 300_000);

  const make = async (name: string): Promise<Docker> => {
    expect((await broker.create(name, `org-of-${name}`)).status).toBeLessThan(300);
    const bound = await broker.bind(name, `binding-of-${name}`);
    expect(bound.status).toBe(201);
    const docker = await dockerFor(bound.body.credentials);
    cleanUp.push(() => docker.dispose());
    return docker;
  };
  const powerOf = (name: string) => powerOfHost(broker, name);
  const isPaused = (name: string) =>
    eventually(`${name} is paused`, async () => (await powerOf(name)) === 'paused', {
      deadlineMs: 240_000,
      everyMs: 200,
    });

  // Fails if the policy ignores the number of running containers.
  it('idle policy: pauses a host, but not one that runs a container', async () => {
    // In this order: when the second one is paused, the first one has been checked and been quiet for longer.
    busy = await make('busy');
    idle = await make('idle');
    expect((await busy.run(['import', '-', 'busybox:test'], await busyboxTree())).code).toBe(0);
    const run = await busy.run(['run', '-d', '--name', 'stays', 'busybox:test', '/bin/sleep', '10000']);
    expect(run.code, run.stderr).toBe(0);
    expect((await idle.run(['version'])).code).toBe(0);
    await isPaused('idle');
    expect(await powerOf('busy')).toBe('running');
  });

  // Fails if a woken host is not identified, which sets its clock; without the wake for bytes of a stream, the request on it
  // waits forever; with TCP keep-alive probes, both streams end after 41 s.
  it('sleep: streams stay open, bytes of a client wake the host, and the guest has the right time', async () => {
    const { credentials } = (await broker.bind('idle', 'binding-of-streams')).body;
    const agent = new Agent({
      ...{ keepAlive: true, maxSockets: 1, scheduling: 'fifo' },
      ...{ ca: credentials.ca, cert: credentials.cert, key: credentials.key },
    });
    cleanUp.push(() => {
      agent.destroy();
      return Promise.resolve();
    });
    const engine = new URL(credentials.docker_host.replace('tcp:', 'https:'));
    const ask = async (path: string) => {
      const sent = get(new URL(path, engine), { agent, timeout: 60_000 });
      sent.once('timeout', () => sent.destroy(new Error(`no answer to ${path}`)));
      const [response] = (await once(sent, 'response')) as [IncomingMessage];
      return { body: await text(response), reused: sent.reusedSocket };
    };
    const events = idle.follow(['events', '--format', '{{.Type}} {{.Action}} {{.Actor.ID}}']);
    cleanUp.push(() => Promise.resolve(void events.kill('SIGKILL')));
    let seen = '';
    events.stdout.on('data', (chunk: Buffer) => (seen += chunk.toString()));
    const createVolume = async (name: string) => {
      expect((await idle.run(['volume', 'create', name])).code).toBe(0);
      await eventually('the event has arrived', () => seen.includes(`volume create ${name}`));
    };
    await eventually('docker listens to events', async () => {
      await idle.run(['volume', 'create', 'first']);
      await idle.run(['volume', 'rm', 'first']);
      return seen.includes('volume create first');
    });
    expect((await ask('/_ping')).body).toBe('OK');

    await sleepNow(broker, 'idle', 'pause');
    const pausedAt = Date.now();
    await eventually('streams would have ended', () => Date.now() - pausedAt > frozenForMs, {
      deadlineMs: 2 * frozenForMs,
      everyMs: 250,
    });
    expect(await powerOf('idle')).toBe('paused');
    expect(events.exitCode).toBeNull();
    const asked = Date.now();
    const info = await ask('/info');
    expect(info.reused).toBe(true);
    // Compared with the times before and after the request: the guest's clock is set with a precision of about a second.
    const guestTime = Date.parse((JSON.parse(info.body) as { SystemTime: string }).SystemTime);
    expect(guestTime).toBeGreaterThan(asked - frozenForMs / 2);
    expect(guestTime).toBeLessThan(Date.now() + frozenForMs / 2);
    await createVolume('after-pause');
  });

  // Fails if the network of a suspended host is closed, or made again when it wakes: the guest's kernel resets the connections.
  it('suspension: streams into a container continue in both directions, and wake the host', async () => {
    expect(await powerOf('busy')).toBe('running');
    const attached = busy.follow(['run', '-i', '--rm', '--name', 'attached', 'busybox:test', '/bin/cat']);
    const command = busy.follow(['exec', '-i', 'stays', '/bin/cat']);
    const streams = [attached, command].map((client) => {
      cleanUp.push(() => Promise.resolve(void client.kill('SIGKILL')));
      const stream = { client, seen: '' };
      client.stdout.on('data', (chunk: Buffer) => (stream.seen += chunk.toString()));
      return stream;
    });
    const echoes = async (text: string) => {
      for (const { client } of streams) client.stdin.write(`${text}\n`);
      for (const stream of streams) {
        await eventually(`${text} has come back`, () => stream.seen.endsWith(`${text}\n`), {
          deadlineMs: 120_000,
          everyMs: 20,
        });
      }
    };
    await echoes('before');
    for (const text of ['first', 'second']) {
      await sleepNow(broker, 'busy', 'suspend');
      expect(streams.map(({ client }) => client.exitCode)).toEqual([null, null]);
      await echoes(text);
      expect(await powerOf('busy')).toBe('running');
    }
    for (const { client, seen } of streams) {
      client.stdin.end();
      const [code] =
        client.exitCode === null ? ((await once(client, 'exit')) as [number | null]) : [client.exitCode];
      expect([code, seen]).toEqual([0, 'before\nfirst\nsecond\n']);
    }
  });

  it('idle policy: pauses a host once its last container has ended', async () => {
    expect(await powerOf('busy')).toBe('running');
    expect((await busy.run(['rm', '-f', 'stays'])).code).toBe(0);
    await isPaused('busy');
    expect((await busy.run(['image', 'inspect', 'busybox:test'])).code).toBe(0);
  });
});
