import net from 'node:net';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { createGateway } from '../../src/gateway/gateway.ts';
import { createWorld, type World } from './support/certificates.ts';
import { createHttpEngine, type StandIn } from './support/engine.ts';
import { FakeSource } from './support/fake-source.ts';
import {
  type Bound,
  get,
  type Harness,
  openStream,
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

/** A lease that ends soon if it isn't renewed, and not by accident on a loaded node. */
const short = { leaseMs: 1_500, renewEveryMs: 50 };

const ping = (harness: Harness, bound: Bound) => harness.connect(bound).ask(get('/_ping'));

describe('at the start', () => {
  it('start: takes a lease before serving, and reads no bindings', async () => {
    const { source } = await startGateway(world);
    expect(source.calls).toEqual(['open', 'takeLease', 'takeLease']);
  });

  it.each(['open', 'takeLease'] as const)(
    'start: listens, refuses and retries if the database fails (%s)',
    async (call) => {
      const source = new FakeSource();
      const recover = source.fail(call, new Error('ECONNREFUSED postgres'));
      const harness = await startGateway(world, { source });
      const bound = await harness.bind(engine.address);
      expect(await ping(harness, bound)).toMatch(/^HTTP\/1\.1 503 .*which bindings are live/s);
      expect(harness.lines.join('\n')).toContain('ECONNREFUSED postgres');
      recover();
      await until('it is in sync', () => harness.gateway.state().inSync);
      expect(await ping(harness, bound)).toContain('200 OK');
    },
  );

  it('start: reports a port that is in use, and releases the lease', async () => {
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

  it('start: throws if the TLS key is invalid', () => {
    const { logger } = recordingLogger();
    const make = () =>
      createGateway({ source: new FakeSource(), tls: { ...world.tls, key: 'none' }, port: 0, logger });
    expect(make).toThrow();
  });
});

describe('a lost connection', () => {
  it('lost connection: refuses new clients at once, leaves streams open, and reconnects', async () => {
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    const client = await openStream(harness, bound);
    const recover = harness.source.fail('open');
    harness.source.lose();
    await turns();
    expect(await ping(harness, bound)).toMatch(/^HTTP\/1\.1 503 .*which bindings are live/s);
    recover();
    await until('it is in sync', () => harness.gateway.state().inSync);
    expect(await ping(harness, bound)).toContain('200 OK');
    client.socket.end('still here');
    expect(await client.ended).toContain('still here');
  });

  it('lost connection: cuts bindings whose revocation was missed', async () => {
    const harness = await startGateway(world);
    const [revoked, moved, unaffected] = [
      await harness.bind(engine.address),
      await harness.bind(engine.address),
      await harness.bind(engine.address),
    ];
    const streams = [await openStream(harness, revoked), await openStream(harness, moved)];
    const other = await openStream(harness, unaffected);
    harness.source.lose();
    harness.source.live.delete(revoked.binding.bindingId);
    harness.source.live.set(moved.binding.bindingId, { ...moved.binding, engine: undefined });
    await Promise.all(streams.map(({ ended }) => ended));
    await until('it is in sync', () => harness.gateway.state().inSync);
    expect(harness.gateway.state().connections).toBe(1);
    other.socket.end('alive');
    expect(await other.ended).toContain('alive');
  });

  it('lost connection: on reconnect reads only bindings with open streams, under a new lease', async () => {
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
      ...['close', 'open', 'takeLease', `read ${open.binding.bindingId}`, 'takeLease'],
    ]);
    expect(harness.gateway.state().cachedBindings).toBe(1);
    expect(await ping(harness, idle)).toContain('200 OK');
  });

  it('lost connection: is in sync only after changes notified during the reconnect were read', async () => {
    const harness = await startGateway(world);
    const [revoked, unaffected] = [await harness.bind(engine.address), await harness.bind(engine.address)];
    const [client, other] = [await openStream(harness, revoked), await openStream(harness, unaffected)];
    const { bindingId } = revoked.binding;
    const reads = harness.source.countOf('read');
    const release = harness.source.delay('read');
    harness.source.lose();
    await until('what is open is being read', () => harness.source.countOf('read') > reads);
    harness.source.revoke(bindingId);
    await turns();
    expect(harness.source.acknowledged).toEqual([]);
    release();
    const releaseAgain = harness.source.delay('read');
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

  it('lost connection: starts over if it is lost again during the reconnect', async () => {
    const harness = await startGateway(world);
    await openStream(harness, await harness.bind(engine.address));
    const reads = harness.source.countOf('read');
    const release = harness.source.delay('read');
    harness.source.lose();
    await until('what is open is being read', () => harness.source.countOf('read') > reads);
    harness.source.lose();
    release();
    await until('it is in sync', () => harness.gateway.state().inSync);
    expect(harness.source.countOf('open')).toBe(3);
  });

  it('lost connection: cuts all streams if the lease ends first, and serves again after a reconnect', async () => {
    const harness = await startGateway(world, short);
    const bound = await harness.bind(engine.address);
    const client = await openStream(harness, bound);
    const recover = harness.source.fail('open');
    harness.source.lose();
    await client.ended;
    expect(harness.gateway.state().counters.cut['lease-lost']).toBe(1);
    recover();
    await until('it is in sync', () => harness.gateway.state().inSync);
    expect(await ping(harness, bound)).toContain('200 OK');
  });

  it('lost connection: cuts streams whose bindings were not read again, despite a new lease', async () => {
    const harness = await startGateway(world, short);
    const bound = await harness.bind(engine.address);
    const client = await openStream(harness, bound);
    const release = harness.source.delay('read');
    onTestFinished(release);
    // Another thread renews the new lease, but not the two of the first connection. Fails if that extends the old one.
    harness.source.sinceRenewal = (lease) => (lease > 1 ? 0 : Infinity);
    harness.source.lose();
    await client.ended;
    expect(harness.source.countOf('takeLease')).toBeGreaterThan(2);
    expect(harness.gateway.state().counters.cut['lease-lost']).toBe(1);
  });
});

describe('a database that hangs', () => {
  it.each(['renewLease', 'read', 'acknowledge'] as const)(
    'hanging database: refuses while %s hangs, and serves again afterwards',
    async (call) => {
      const harness = await startGateway(world, short);
      const [bound, other] = [await harness.bind(engine.address), await harness.bind(engine.address)];
      const client = await openStream(harness, bound);
      const release = harness.source.delay(call);
      // The hanging call blocks the whole session, so the binding that is not revoked is refused as well.
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

  it('hanging database: a close that hangs does not delay the reconnect', async () => {
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    onTestFinished(harness.source.delay('close'));
    harness.source.lose();
    await until('it reconnects', () => harness.source.countOf('open') === 2);
    await until('it is in sync', () => harness.gateway.state().inSync);
    expect(await ping(harness, bound)).toContain('200 OK');
  });

  it('hanging database: does not delay a stop', async () => {
    const harness = await startGateway(world);
    const client = await openStream(harness, await harness.bind(engine.address));
    for (const call of ['releaseLease', 'close'] as const) onTestFinished(harness.source.delay(call));
    await harness.gateway.stop();
    await client.ended;
    expect(harness.lines.join('\n')).toContain('unbinds wait until it expires');
  });
});

it('stop: cuts all streams, releases the lease, then closes the source', async () => {
  const harness = await startGateway(world);
  const bound = await harness.bind(engine.address);
  const client = await openStream(harness, bound);
  const silent = net.connect({ host: '127.0.0.1', port: harness.port });
  silent.on('error', () => undefined);
  await until('it is connected', () => harness.gateway.state().unauthenticated === 1);
  await harness.gateway.stop();
  expect(harness.gateway.state()).toMatchObject({ inSync: false, connections: 0 });
  await client.ended;
  await until('the silent client is closed too', () => silent.destroyed);
  expect(harness.source.leases).toBe(0);
  expect(harness.source.calls.slice(-2)).toEqual(['releaseLease', 'close']);
  const calls = harness.source.calls.length;
  const late = harness.connect(bound);
  await late.ended;
  expect(late.socket.authorized).toBe(false);
  await turns();
  expect(harness.source.calls.length).toBe(calls);
});
