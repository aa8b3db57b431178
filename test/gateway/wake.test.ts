import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import type { EngineAddress } from '../../src/core/hypervisor/network.ts';
import { createWorld, type World } from './support/certificates.ts';
import { startHttpEngine } from './support/engine.ts';
import { get, startGateway } from './support/harness.ts';
import { until } from './support/until.ts';

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

  it('wake: leaves the open streams of a host that was paused open', async () => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    const client = harness.connect(bound);
    await until('it is connected', () => engine.open() === 1);
    harness.source.put({ ...bound.binding, asleep: true });
    await until('it was read', () => harness.source.countOf(`read ${bound.binding.bindingId}`) > 0);
    expect(await client.ask(get('/_ping'))).toContain('OK');
  });
});
