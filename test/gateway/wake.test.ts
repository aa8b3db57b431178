import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import type { EngineAddress } from '../../src/core/hypervisor/network.ts';
import { createWorld, type World } from './support/certificates.ts';
import { createStandIn, startHttpEngine, untilTestEnds } from './support/engine.ts';
import { type Bound, get, type Harness, openStream, startGateway } from './support/harness.ts';
import { turns, until } from './support/until.ts';

let world: World;

beforeAll(async () => {
  world = await createWorld();
});

/** Listens with a full accept queue: connections stay pending, as with a paused guest. */
async function deafAddress(): Promise<EngineAddress> {
  const listen = `socket(S, 2, 1, 0); bind(S, pack("S n a4 x8", 2, 0, "\\x7f\\0\\0\\1")); listen(S, 0);
    $| = 1; print unpack("x2 n", getsockname S), "\\n"; sleep 600`;
  const child = spawn('perl', ['-e', listen], { stdio: ['ignore', 'pipe', 'inherit'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  const address = { host: '127.0.0.1', port: Number(line) };
  for (let count = 0; count < 3; count += 1) {
    const filler = connect(address).on('error', () => undefined);
    onTestFinished(() => {
      filler.destroy();
    });
  }
  return address;
}

describe('a host that sleeps', () => {
  it('wake: requests a wake when a client connects, and proxies once the host is awake', async () => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address, { asleep: true });
    const clients = [harness.connect(bound), harness.connect(bound)];
    const answers = clients.map((client) => client.ask(get('/_ping')));
    await until('a wake is requested', () => harness.source.woken.includes(bound.binding.hostId));
    // The gateway doesn't connect before that.
    expect(engine.connections()).toBe(0);
    harness.source.put({ ...bound.binding, asleep: false });
    for (const answer of await Promise.all(answers)) expect(answer).toContain('OK');
    expect(engine.connections()).toBe(2);
  });

  it('wake: repeats the request in case one is lost', async () => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address, { asleep: true });
    const recover = harness.source.fail('wake');
    const answer = harness.connect(bound).ask(get('/_ping'));
    await until('a wake is requested', () => harness.source.countOf('wake') > 0);
    recover();
    await until('a wake is requested', () => harness.source.woken.length > 0);
    harness.source.put({ ...bound.binding, asleep: false });
    expect(await answer).toContain('OK');
  });

  it('wake: refuses the client with a message if the host does not wake in time', async () => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world, { limits: { wakeTimeoutMs: 100 } });
    const bound = await harness.bind(engine.address, { asleep: true });
    const answer = await harness.connect(bound).ask(get('/_ping'));
    expect(answer).toMatch(/^HTTP\/1\.1 503 /);
    expect(answer).toContain('paused while idle');
    expect(harness.gateway.state().counters.refused['host-asleep']).toBe(1);
    expect(engine.connections()).toBe(0);
    // The next client requests a wake again.
    const next = harness.connect(bound).ask(get('/_ping'));
    await until('a wake is requested', () => harness.source.countOf('wake') > 1);
    harness.source.put({ ...bound.binding, asleep: false });
    expect(await next).toContain('OK');
  });

  // Fails if the refusal isn't processed: the client waits in vain, and is told that the wake took too long.
  it('wake: refuses the client at once if the node lacks memory', async () => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world, { limits: { wakeTimeoutMs: 3_600_000 } });
    const wakeRefusedAt = new Date(1_000);
    const bound = await harness.bind(engine.address, { asleep: true, wakeRefusedAt });
    const answer = harness.connect(bound).ask(get('/_ping'));
    await until('a wake is requested', () => harness.source.woken.length > 0);
    // A refusal from before this request doesn't count.
    harness.source.notifyAgain(bound.binding.bindingId);
    await until('it was read', () => harness.source.countOf(`read ${bound.binding.bindingId}`) > 1);
    expect(harness.gateway.state().counters.refused['no-room']).toBe(0);
    harness.source.put({ ...bound.binding, wakeRefusedAt: new Date(2_000) });
    expect(await answer).toMatch(/^HTTP\/1\.1 503 [^]*the node lacks the memory to wake it/);
    expect(harness.gateway.state().counters.refused['no-room']).toBe(1);
    expect(engine.connections()).toBe(0);
    // The next client requests a wake again.
    const next = harness.connect(bound).ask(get('/_ping'));
    await until('a wake is requested', () => harness.source.woken.length > 1);
    harness.source.put({ ...bound.binding, asleep: false });
    expect(await next).toContain('OK');
  });

  it('wake: refuses a client whose binding was revoked while its host woke', async () => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address, { asleep: true });
    const other = await harness.bind(engine.address, { asleep: true, hostId: bound.binding.hostId });
    const answer = harness.connect(bound).ask(get('/_ping'));
    await until('a wake is requested', () => harness.source.woken.length > 0);
    harness.source.revoke(bound.binding.bindingId);
    await until('it is revoked', () => harness.source.acknowledged.includes(bound.binding.bindingId));
    harness.source.put({ ...other.binding, asleep: false });
    expect(await answer).toMatch(/^HTTP\/1\.1 403 /);
    expect(engine.connections()).toBe(0);
  });

  it('wake: requests a wake if the engine is slow to accept, since the host may have just been paused', async () => {
    const harness = await startGateway(world, { limits: { slowConnectMs: 20 } });
    const bound = await harness.bind(await deafAddress());
    const client = harness.connect(bound);
    await until('a wake is requested', () => harness.source.woken.includes(bound.binding.hostId));
    client.socket.destroy();
  });
});

describe('an open stream of a host that falls asleep', () => {
  const keptAlive = get('/_ping').replace('close', 'keep-alive');
  const countAnswers = (text: string) => text.split('\r\n\r\nOK').length - 1;

  /** The gateway hears that the host fell asleep or woke. */
  async function setAsleep(harness: Harness, { binding }: Bound, asleep: boolean): Promise<void> {
    const call = `read ${binding.bindingId}`;
    const before = harness.source.countOf(call);
    harness.source.put({ ...binding, asleep });
    await until('it was read', () => harness.source.countOf(call) > before);
    await turns();
  }

  /** A client with an answered request, whose connection stays open. */
  async function connectKeptAlive(harness: Harness, bound: Bound) {
    const client = harness.connect(bound);
    client.socket.write(keptAlive);
    await until('the request is answered', () => countAnswers(client.received()) === 1);
    return client;
  }

  // Fails if the gateway passes bytes to a sleeping host: no wake is requested.
  it('stream: bytes of its client wake the host, and are answered on the same connection', async () => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    const clients = [await connectKeptAlive(harness, bound), await connectKeptAlive(harness, bound)];
    const idle = await connectKeptAlive(harness, bound);
    await setAsleep(harness, bound, true);
    expect(harness.source.woken).toEqual([]);
    const received = engine.bytes();
    for (const { socket } of clients) socket.write(keptAlive);
    await until('a wake is requested', () => harness.source.woken.includes(bound.binding.hostId));
    expect(engine.bytes()).toBe(received);
    await setAsleep(harness, bound, false);
    for (const client of clients) {
      await until('the request is answered', () => countAnswers(client.received()) === 2);
      expect(client.over()).toBe(false);
    }
    expect(engine.connections()).toBe(3);
    expect(idle.over()).toBe(false);
  });

  it('stream: passes bytes of the engine while the host is recorded as asleep', async () => {
    const engine = await untilTestEnds(createStandIn(() => undefined));
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    const client = harness.connect(bound);
    await until('it is connected', () => engine.open() === 1);
    await setAsleep(harness, bound, true);
    engine.sockets()[0]?.write('event');
    await until('the event has arrived', () => client.received() === 'event');
    expect(harness.source.woken).toEqual([]);
  });

  // Fails without the check: the request met a paused engine, and the client waited forever.
  it('stream: a request without an answer wakes a host that has just fallen asleep', async () => {
    const engine = await untilTestEnds(createStandIn(() => undefined));
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    const client = harness.connect(bound);
    client.socket.write(keptAlive);
    await until('the engine has the request', () => engine.bytes() === keptAlive.length);
    await setAsleep(harness, bound, true);
    await until('a wake is requested', () => harness.source.woken.includes(bound.binding.hostId));
    await setAsleep(harness, bound, false);
    engine.sockets()[0]?.write('answer');
    await until('the answer has arrived', () => client.received() === 'answer');
  });

  it('stream: is cut if the host can not be woken for its client, while quiet ones stay', async () => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world, { limits: { wakeTimeoutMs: 100 } });
    const bound = await harness.bind(engine.address);
    const [client, quiet] = [await connectKeptAlive(harness, bound), await connectKeptAlive(harness, bound)];
    await setAsleep(harness, bound, true);
    client.socket.write(keptAlive);
    await client.ended;
    expect(countAnswers(client.received())).toBe(1);
    expect(harness.gateway.state().counters.cut['not-woken']).toBe(1);
    expect(harness.lines.join('\n')).toContain('Stream cut: its host could not be woken');
    await until('the engine has one connection', () => engine.open() === 1);
    await setAsleep(harness, bound, false);
    quiet.socket.write(keptAlive);
    await until('the request is answered', () => countAnswers(quiet.received()) === 2);
  });

  it('stream: the end of its input waits until the host is awake, and wakes nobody', async () => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    const client = await openStream(harness, bound);
    await setAsleep(harness, bound, true);
    client.socket.end();
    await until('the gateway has the end', () => client.socket.writableFinished);
    await turns();
    expect(harness.source.woken).toEqual([]);
    expect(client.received()).not.toContain('that was all');
    await setAsleep(harness, bound, false);
    expect(await client.ended).toContain('that was all');
  });

  // Fails if the probes continue: a paused guest answers none, and the kernel ends the connection after 41 s.
  it('stream: the kernel probes only an engine that is awake', async () => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    const client = await openStream(harness, bound);
    expect(await hasKeepAliveTimer(engine.address)).toBe(true);
    await setAsleep(harness, bound, true);
    expect(await hasKeepAliveTimer(engine.address)).toBe(false);
    await setAsleep(harness, bound, false);
    expect(await hasKeepAliveTimer(engine.address)).toBe(true);
    client.socket.destroy();
  });
});

/** Whether a keep-alive timer runs for the one connection to this address: `tr` is 2 in /proc/net/tcp (proc(5)). */
async function hasKeepAliveTimer({ port }: EngineAddress): Promise<boolean> {
  const remote = `0100007F:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  const established = '01';
  const timers = (await readFile('/proc/net/tcp', 'utf8'))
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[2] === remote && fields[3] === established)
    .map((fields) => fields[5]);
  expect(timers).toHaveLength(1);
  return timers[0]?.startsWith('02:') === true;
}
