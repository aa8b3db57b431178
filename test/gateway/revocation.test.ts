import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { createWorld, type World } from './support/certificates.ts';
import { createHttpEngine, createStandIn, type StandIn } from './support/engine.ts';
import { get, openStream, startGateway } from './support/harness.ts';
import { turns, until } from './support/until.ts';

let world: World;
let engine: StandIn;

beforeAll(async () => {
  world = await createWorld();
  engine = await createHttpEngine();
  return () => engine.close();
});

describe('a revoked binding', () => {
  it('revocation: cuts every stream of the binding on both sides, then acknowledges', async () => {
    const harness = await startGateway(world);
    const [bound, other] = [await harness.bind(engine.address), await harness.bind(engine.address)];
    const streams = [await openStream(harness, bound), await openStream(harness, bound)];
    const unaffected = await openStream(harness, other);
    const openAtAcknowledgement: number[] = [];
    harness.source.onAcknowledge = () => openAtAcknowledgement.push(harness.gateway.state().connections);
    harness.source.revoke(bound.binding.bindingId);
    await Promise.all(streams.map(({ ended }) => ended));
    await until('it is acknowledged', () => harness.source.acknowledged.length > 0);
    expect(harness.source.acknowledged).toEqual([bound.binding.bindingId]);
    expect(openAtAcknowledgement).toEqual([1]);
    await until('both connections to the engine are closed', () => engine.open() === 1);
    expect(harness.gateway.state().counters.cut.invalidated).toBe(2);
    unaffected.socket.end('alive');
    expect(await unaffected.ended).toContain('alive');
  });

  it('revocation: refuses the binding after its acknowledgement', async () => {
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    expect(await harness.connect(bound).ask(get('/_ping'))).toContain('200 OK');
    harness.source.revoke(bound.binding.bindingId);
    await until('it is acknowledged', () => harness.source.acknowledged.length === 1);
    expect(await harness.connect(bound).ask(get('/_ping'))).toMatch(/^HTTP\/1\.1 403/);
  });

  it('revocation: cuts a stream if neither the client nor the engine reads', async () => {
    const stuck = await createStandIn((socket) => {
      socket.pause();
      const pour = () => {
        while (socket.write(Buffer.alloc(65_536)));
      };
      socket.on('drain', pour);
      pour();
    });
    onTestFinished(() => stuck.close());
    const harness = await startGateway(world);
    const bound = await harness.bind(stuck.address);
    const client = harness.connect(bound);
    client.socket.once('secureConnect', () => {
      client.socket.pause();
      while (client.socket.write(Buffer.alloc(65_536)));
    });
    await until('both are stuck', () => {
      const { bytesToEngines, bytesToClients } = harness.gateway.state().counters;
      return bytesToEngines > 0 && bytesToClients > 0;
    });
    harness.source.revoke(bound.binding.bindingId);
    await until('it is acknowledged', () => harness.source.acknowledged.length === 1);
    expect(harness.gateway.state().connections).toBe(0);
    // The engine's writes fail, so it notices the end although it reads nothing.
    await until('the connection to the engine is closed', () => stuck.open() === 0);
  });

  it('revocation: acknowledges again on each repeated notification', async () => {
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    harness.source.revoke(bound.binding.bindingId);
    await until('it is acknowledged', () => harness.source.acknowledged.length === 1);
    harness.source.notifyAgain(bound.binding.bindingId);
    await until('it is acknowledged again', () => harness.source.acknowledged.length === 2);
    harness.source.notifyAgain('unknown');
    await until('an unknown binding is acknowledged too', () =>
      harness.source.acknowledged.includes('unknown'),
    );
  });

  it('revocation: is not undone by an earlier look-up that returns the binding as live', async () => {
    const harness = await startGateway(world);
    const issued = await world.issue();
    const binding = {
      ...{
        bindingId: 'late',
        serial: issued.serial,
        hostId: 'h1',
        tenantId: 't1',
        expiresAt: issued.expiresAt,
        asleep: false,
      },
      engine: engine.address,
    };
    harness.source.live.set('late', binding);
    const release = harness.source.delay('readBySerial');
    const client = harness.connect(issued);
    await until('it is being looked up', () => harness.source.countOf('readBySerial') === 1);
    harness.source.revoke('late');
    await turns();
    // Not before the older answer has arrived: it could bring the binding back afterwards.
    expect(harness.source.acknowledged).toEqual([]);
    release();
    await until('it is acknowledged', () => harness.source.acknowledged.length === 1);
    expect(harness.gateway.state()).toMatchObject({ connections: 0, cachedBindings: 0 });
    client.socket.write(get('/_ping'));
    expect(await client.ended).not.toContain('200 OK');
    expect(await harness.connect(issued).ask(get('/_ping'))).toMatch(/^HTTP\/1\.1 403/);
  });

  it('revocation: reads a binding again if it is notified during a read', async () => {
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    const client = await openStream(harness, bound);
    const release = harness.source.delay('read');
    harness.source.notifyAgain(bound.binding.bindingId);
    await until('it is being read, as live', () => harness.source.countOf('read') === 2);
    harness.source.revoke(bound.binding.bindingId);
    release();
    await until('it is acknowledged', () => harness.source.acknowledged.length === 1);
    await client.ended;
  });

  it('revocation: acknowledges each of 300 bindings that are revoked at once', async () => {
    const harness = await startGateway(world);
    const ids = Array.from({ length: 300 }, (_, index) => `binding-${index}`);
    const issued = await world.issue();
    for (const bindingId of ids) {
      const { expiresAt } = issued;
      harness.source.put({
        bindingId,
        serial: bindingId,
        hostId: 'h',
        tenantId: 't1',
        expiresAt,
        engine: engine.address,
        asleep: false,
      });
    }
    await until('all are known', () => harness.gateway.state().cachedBindings === ids.length);
    for (const bindingId of ids) harness.source.revoke(bindingId);
    await until('all are acknowledged', () => harness.source.acknowledged.length === ids.length);
    expect(new Set(harness.source.acknowledged).size).toBe(ids.length);
    expect(harness.gateway.state().cachedBindings).toBe(0);
  });
});

describe('a binding that is still live', () => {
  it('change: cuts and acknowledges nothing if the binding is notified but unchanged', async () => {
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    const client = await openStream(harness, bound);
    const reads = harness.source.countOf('read');
    harness.source.put({ ...bound.binding, expiresAt: new Date(bound.binding.expiresAt) });
    await until('it was read', () => harness.source.countOf('read') > reads);
    await turns();
    expect(harness.source.acknowledged).toEqual([]);
    client.socket.end('here');
    expect(await client.ended).toContain('here');
  });

  it('change: cuts streams when the host moves, connects to the new address, and acknowledges nothing', async () => {
    const elsewhere = await createHttpEngine();
    onTestFinished(() => elsewhere.close());
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    const client = await openStream(harness, bound);
    harness.source.put({ ...bound.binding, engine: elsewhere.address });
    await client.ended;
    expect(await harness.connect(bound).ask(get('/_ping'))).toContain('200 OK');
    expect(elsewhere.connections()).toBe(1);
    expect(harness.source.acknowledged).toEqual([]);
  });

  it('change: cuts streams when the host loses its address, and serves again when it has one', async () => {
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    const client = await openStream(harness, bound);
    harness.source.put({ ...bound.binding, engine: undefined });
    await client.ended;
    expect(await harness.connect(bound).ask(get('/_ping'))).toMatch(/^HTTP\/1\.1 503/);
    harness.source.put(bound.binding);
    await until('it is known', () => harness.source.countOf('read') >= 3);
    await turns();
    expect(await harness.connect(bound).ask(get('/_ping'))).toContain('200 OK');
  });
});

describe('expiry', () => {
  it('expiry: cuts the streams of an expired binding without a notification, and no others', async () => {
    const harness = await startGateway(world);
    const later = await harness.bind(engine.address);
    const sooner = await harness.bind(engine.address, { expiresAt: new Date(Date.now() + 1_500) });
    const unaffected = await openStream(harness, later);
    const client = await openStream(harness, sooner);
    await client.ended;
    expect(Date.now()).toBeGreaterThanOrEqual(sooner.binding.expiresAt.getTime());
    await until('it is counted', () => harness.gateway.state().counters.cut.expired === 1);
    expect(harness.gateway.state().connections).toBe(1);
    unaffected.socket.end('alive');
    expect(await unaffected.ended).toContain('alive');
  });

  it('expiry: cuts a stream at its next chunk even if the timer is late', async () => {
    let ahead = 0;
    const clock = { monotonic: () => performance.now(), wall: () => Date.now() + ahead };
    // The lease is longer than the clock's jump.
    const harness = await startGateway(world, { clock, leaseMs: 10 * 86_400_000, renewEveryMs: 86_400_000 });
    const client = await openStream(harness, await harness.bind(engine.address));
    const before = engine.bytes();
    ahead = 2 * 86_400_000;
    client.socket.write('late');
    await client.ended;
    await until('the connection to the engine is closed', () => engine.open() === 0);
    expect(engine.bytes()).toBe(before);
    expect(harness.gateway.state().counters.cut.expired).toBe(1);
  });
});
