import net from 'node:net';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { createGateway } from '../../src/gateway/gateway.ts';
import { createWorld, type World } from './support/certificates.ts';
import { createHttpEngine, type StandIn } from './support/engine.ts';
import { FakeSource } from './support/fake-source.ts';
import {
  attach,
  type Bound,
  type Client,
  get,
  type Harness,
  recordingLogger,
  startGateway,
} from './support/harness.ts';
import { turns, until } from './support/until.ts';

let world: World;
let engine: StandIn;

beforeAll(async () => {
  world = await createWorld();
  engine = await createHttpEngine();
  return () => engine.close();
});

/** A lease that ends soon where it is not renewed, and never by accident on a busy machine. */
const short = { leaseMs: 1_500, renewEveryMs: 50 };

async function openStream(harness: Harness, bound: Bound): Promise<Client> {
  const client = harness.connect(bound);
  client.socket.write(attach);
  await until('the connection is taken over', () => client.received().includes('UPGRADED'));
  return client;
}

const ping = (harness: Harness, bound: Bound) => harness.connect(bound).ask(get('/_ping'));

describe('at the start', () => {
  it('a lease is held before anything is served, and nothing is read: all is looked up when it connects', async () => {
    const { source } = await startGateway(world);
    expect(source.calls).toEqual(['open', 'renewLease', 'renewLease']);
  });

  it.each(['open', 'renewLease'] as const)(
    'it listens, refuses and goes on trying where the database fails (%s)',
    async (call) => {
      const source = new FakeSource();
      const mend = source.fail(call, new Error('ECONNREFUSED postgres'));
      const harness = await startGateway(world, { source });
      const bound = await harness.bind(engine.address);
      expect(await ping(harness, bound)).toMatch(/^HTTP\/1\.1 503 .*which bindings are live/s);
      expect(harness.lines.join('\n')).toContain('ECONNREFUSED postgres');
      mend();
      await until('it is in sync', () => harness.gateway.state().inSync);
      expect(await ping(harness, bound)).toContain('200 OK');
    },
  );

  it('a port in use is named, and the lease given back', async () => {
    const taken = net.createServer().listen(0, '127.0.0.1');
    onTestFinished(() => {
      taken.close();
    });
    await new Promise((resolve) => taken.once('listening', resolve));
    const { port } = taken.address() as net.AddressInfo;
    const source = new FakeSource();
    const { logger } = recordingLogger();
    const gateway = createGateway({ source, tls: world.tls, port, host: '127.0.0.1', logger });
    await expect(gateway.start()).rejects.toThrow(
      new RegExp(`port ${port} of 127\\.0\\.0\\.1 .*EADDRINUSE.*another port`),
    );
    expect(source.leases).toBe(0);
    expect(source.calls.at(-1)).toBe('close');
  });

  it('a key that does not fit is refused before anything else', () => {
    const { logger } = recordingLogger();
    const make = () =>
      createGateway({ source: new FakeSource(), tls: { ...world.tls, key: 'none' }, port: 0, logger });
    expect(make).toThrow();
  });
});

describe('a lost connection', () => {
  it('refuses new clients at once, keeps open streams, and is mended', async () => {
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    const client = await openStream(harness, bound);
    const mend = harness.source.fail('open');
    harness.source.lose();
    await turns();
    expect(await ping(harness, bound)).toMatch(/^HTTP\/1\.1 503 .*which bindings are live/s);
    mend();
    await until('it is in sync', () => harness.gateway.state().inSync);
    expect(await ping(harness, bound)).toContain('200 OK');
    client.socket.end('still here');
    expect(await client.ended).toContain('still here');
  });

  it('is followed by a cut of what was unbound meanwhile, though nothing was heard of it', async () => {
    const harness = await startGateway(world);
    const [gone, moved, kept] = [
      await harness.bind(engine.address),
      await harness.bind(engine.address),
      await harness.bind(engine.address),
    ];
    const streams = [await openStream(harness, gone), await openStream(harness, moved)];
    const other = await openStream(harness, kept);
    harness.source.lose();
    harness.source.live.delete(gone.binding.bindingId);
    harness.source.live.set(moved.binding.bindingId, { ...moved.binding, engine: undefined });
    await Promise.all(streams.map(({ ended }) => ended));
    await until('it is in sync', () => harness.gateway.state().inSync);
    expect(harness.gateway.state().connections).toBe(1);
    other.socket.end('alive');
    expect(await other.ended).toContain('alive');
  });

  it('is mended by reading what has something open, and nothing else, under a lease of its own', async () => {
    const harness = await startGateway(world);
    const [open, idle] = [await harness.bind(engine.address), await harness.bind(engine.address)];
    expect(await ping(harness, idle)).toContain('200 OK');
    await openStream(harness, open);
    await until('one is closed', () => harness.gateway.state().connections === 1);
    const before = harness.source.calls.length;
    harness.source.lose();
    await turns();
    await until('it is in sync', () => harness.gateway.state().inSync);
    expect(harness.source.calls.slice(before)).toEqual([
      ...['close', 'open', 'renewLease', `read ${open.binding.bindingId}`, 'renewLease'],
    ]);
    expect(harness.gateway.state().cachedBindings).toBe(1);
    expect(await ping(harness, idle)).toContain('200 OK');
  });

  it('is mended only once what was heard meanwhile was read as well', async () => {
    const harness = await startGateway(world);
    const [revoked, kept] = [await harness.bind(engine.address), await harness.bind(engine.address)];
    const [client, other] = [await openStream(harness, revoked), await openStream(harness, kept)];
    const { bindingId } = revoked.binding;
    const reads = harness.source.countOf('read');
    const release = harness.source.hold('read');
    harness.source.lose();
    await until('what is open is being read', () => harness.source.countOf('read') > reads);
    harness.source.revoke(bindingId);
    await turns();
    expect(harness.source.acknowledged).toEqual([]);
    release();
    const releaseAgain = harness.source.hold('read');
    await until('it is read again', () => harness.source.calls.at(-1) === `read ${bindingId}`);
    await turns();
    expect(harness.gateway.state().inSync).toBe(false);
    releaseAgain();
    await client.ended;
    await until('it is in sync', () => harness.gateway.state().inSync);
    expect(harness.source.acknowledged).toEqual([bindingId]);
    other.socket.end('alive');
    expect(await other.ended).toContain('alive');
  });

  it('while it is being mended begins anew', async () => {
    const harness = await startGateway(world);
    await openStream(harness, await harness.bind(engine.address));
    const reads = harness.source.countOf('read');
    const release = harness.source.hold('read');
    harness.source.lose();
    await until('what is open is being read', () => harness.source.countOf('read') > reads);
    harness.source.lose();
    release();
    await until('it is in sync', () => harness.gateway.state().inSync);
    expect(harness.source.countOf('open')).toBe(3);
  });

  it('cuts everything where it is not mended before the lease ends, and serves again when it is', async () => {
    const harness = await startGateway(world, short);
    const bound = await harness.bind(engine.address);
    const client = await openStream(harness, bound);
    const mend = harness.source.fail('open');
    harness.source.lose();
    await client.ended;
    expect(harness.gateway.state().counters.cut['lease-lost']).toBe(1);
    mend();
    await until('it is in sync', () => harness.gateway.state().inSync);
    expect(await ping(harness, bound)).toContain('200 OK');
  });

  it('is not mended, for what is open, by a new lease alone: only by having read it again', async () => {
    const harness = await startGateway(world, short);
    const bound = await harness.bind(engine.address);
    const client = await openStream(harness, bound);
    const release = harness.source.hold('read');
    onTestFinished(release);
    harness.source.lose();
    await client.ended;
    expect(harness.source.countOf('renewLease')).toBeGreaterThan(2);
    expect(harness.gateway.state().counters.cut['lease-lost']).toBe(1);
  });
});

describe('a database that hangs', () => {
  it.each(['renewLease', 'read', 'acknowledge'] as const)(
    'in the middle of %s ends with everything cut and refused, and with serving again',
    async (call) => {
      const harness = await startGateway(world, short);
      const [bound, other] = [await harness.bind(engine.address), await harness.bind(engine.address)];
      const client = await openStream(harness, bound);
      const release = harness.source.hold(call);
      // Both hang on it: the one that is revoked, and in the end the one that is not.
      harness.source.revoke(other.binding.bindingId);
      await until('it is out of sync', () => !harness.gateway.state().inSync);
      expect(await ping(harness, bound)).toMatch(/^HTTP\/1\.1 503/);
      if (call === 'renewLease') await client.ended;
      release();
      await until('it is in sync', () => harness.gateway.state().inSync);
      expect(await ping(harness, bound)).toContain('200 OK');
      expect(await ping(harness, other)).toMatch(/^HTTP\/1\.1 403/);
    },
  );

  it('when it is to let go holds nothing up', async () => {
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    onTestFinished(harness.source.hold('close'));
    harness.source.lose();
    await until('it is being mended', () => harness.source.countOf('open') === 2);
    await until('it is in sync', () => harness.gateway.state().inSync);
    expect(await ping(harness, bound)).toContain('200 OK');
  });

  it('is not waited for by a stop', async () => {
    const harness = await startGateway(world);
    const client = await openStream(harness, await harness.bind(engine.address));
    for (const call of ['releaseLease', 'close'] as const) onTestFinished(harness.source.hold(call));
    await harness.gateway.stop();
    await client.ended;
    expect(harness.lines.join('\n')).toContain('unbinds wait until it expires');
  });
});

describe('a process that was suspended', () => {
  const day = 86_400_000;
  /** No timer of this gateway fires in the time of a test: only what looks at the clock can notice. */
  const noTimers = { leaseMs: day, renewEveryMs: day };

  it.each([
    ['both clocks have gone on', { monotonic: 2 * day, wall: 2 * day }],
    ['the monotonic one has stood still, as where the whole machine slept', { monotonic: 0, wall: day }],
    ['the wall clock was set back besides', { monotonic: day, wall: -day }],
  ])('passes not a byte on a lease that has ended: %s', async (_, jump) => {
    const offset = { monotonic: 0, wall: 0 };
    const clock = {
      monotonic: () => performance.now() + offset.monotonic,
      wall: () => Date.now() + offset.wall,
    };
    const harness = await startGateway(world, { ...noTimers, clock });
    const expiresAt = new Date(Date.now() + 10 * day);
    const bound = await harness.bind(engine.address, { expiresAt });
    const [talking, silent] = [await openStream(harness, bound), await openStream(harness, bound)];
    const before = engine.bytes();
    Object.assign(offset, jump);
    talking.socket.write('rm -rf');
    // The first that is noticed cuts all, the silent one too.
    await Promise.all([talking.ended, silent.ended]);
    await until('the engine is rid of both', () => engine.open() === 0);
    expect(engine.bytes()).toBe(before);
    expect(harness.gateway.state().counters.cut['lease-lost']).toBe(2);
    await until('it is in sync', () => harness.gateway.state().inSync);
    expect(await ping(harness, bound)).toContain('200 OK');
  });

  it('sends nothing from the engine to the client either', async () => {
    let ahead = 0;
    const clock = { monotonic: () => performance.now() + ahead, wall: () => Date.now() + ahead };
    const harness = await startGateway(world, { ...noTimers, clock });
    const client = await openStream(
      harness,
      await harness.bind(engine.address, { expiresAt: new Date(Date.now() + 10 * day) }),
    );
    ahead = 2 * day;
    for (const socket of engine.sockets()) socket.write('secret');
    await client.ended;
    expect(client.received()).not.toContain('secret');
  });

  it('does not mend a lease that has ended by renewing it: what is open is cut, silent as it is', async () => {
    let ahead = 0;
    const clock = { monotonic: () => performance.now() + ahead, wall: () => Date.now() + ahead };
    const harness = await startGateway(world, { clock, leaseMs: day, renewEveryMs: 50 });
    const bound = await harness.bind(engine.address, { expiresAt: new Date(Date.now() + 10 * day) });
    const client = await openStream(harness, bound);
    ahead = 2 * day;
    await client.ended;
    expect(harness.gateway.state().counters.cut['lease-lost']).toBe(1);
  });

  it('admits nobody', async () => {
    let ahead = 0;
    const clock = { monotonic: () => performance.now() + ahead, wall: () => Date.now() + ahead };
    const harness = await startGateway(world, { ...noTimers, clock });
    const bound = await harness.bind(engine.address, { expiresAt: new Date(Date.now() + 10 * day) });
    await until('it is known', () => harness.gateway.state().cachedBindings === 1);
    const mend = harness.source.fail('open');
    const before = engine.connections();
    ahead = 2 * day;
    expect(await ping(harness, bound)).toMatch(/^HTTP\/1\.1 503/);
    expect(engine.connections()).toBe(before);
    mend();
    await until('it is in sync', () => harness.gateway.state().inSync);
  });
});

it('a stop cuts everything, then gives the lease back, then lets go', async () => {
  const harness = await startGateway(world);
  const bound = await harness.bind(engine.address);
  const client = await openStream(harness, bound);
  const silent = net.connect({ host: '127.0.0.1', port: harness.port });
  silent.on('error', () => undefined);
  await until('it is there', () => harness.gateway.state().unauthenticated === 1);
  await harness.gateway.stop();
  expect(harness.gateway.state()).toMatchObject({ inSync: false, connections: 0 });
  await client.ended;
  await until('the silent one is gone too', () => silent.destroyed);
  expect(harness.source.leases).toBe(0);
  expect(harness.source.calls.slice(-2)).toEqual(['releaseLease', 'close']);
  const calls = harness.source.calls.length;
  const late = harness.connect(bound);
  await late.ended;
  expect(late.socket.authorized).toBe(false);
  await turns();
  expect(harness.source.calls.length).toBe(calls);
});
