import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { createWorld, type World } from './support/certificates.ts';
import { createHttpEngine, createStandIn, type StandIn } from './support/engine.ts';
import { attach, type Bound, type Client, get, type Harness, startGateway } from './support/harness.ts';
import { turns, until } from './support/until.ts';

let world: World;
let engine: StandIn;

beforeAll(async () => {
  world = await createWorld();
  engine = await createHttpEngine();
  return () => engine.close();
});

/** A connection that was taken over and stands open, as `docker logs -f` does. */
async function openStream(harness: Harness, bound: Bound): Promise<Client> {
  const client = harness.connect(bound);
  client.socket.write(attach);
  await until('the connection is taken over', () => client.received().includes('UPGRADED'));
  return client;
}

describe('a revoked binding', () => {
  it('has every stream cut on both sides, and is acknowledged only then', async () => {
    const harness = await startGateway(world);
    const [bound, other] = [await harness.bind(engine.address), await harness.bind(engine.address)];
    const streams = [await openStream(harness, bound), await openStream(harness, bound)];
    const kept = await openStream(harness, other);
    const openAtAcknowledgement: number[] = [];
    harness.source.onAcknowledge = () => openAtAcknowledgement.push(harness.gateway.state().connections);
    harness.source.revoke(bound.binding.bindingId);
    await Promise.all(streams.map(({ ended }) => ended));
    await until('it is acknowledged', () => harness.source.acknowledged.length > 0);
    expect(harness.source.acknowledged).toEqual([bound.binding.bindingId]);
    expect(openAtAcknowledgement).toEqual([1]);
    await until('the engine is rid of both', () => engine.open() === 1);
    expect(harness.gateway.state().counters.cut.invalidated).toBe(2);
    kept.socket.end('alive');
    expect(await kept.ended).toContain('alive');
  });

  it('is refused from then on', async () => {
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    expect(await harness.connect(bound).ask(get('/_ping'))).toContain('200 OK');
    harness.source.revoke(bound.binding.bindingId);
    await until('it is acknowledged', () => harness.source.acknowledged.length === 1);
    expect(await harness.connect(bound).ask(get('/_ping'))).toMatch(/^HTTP\/1\.1 403/);
  });

  it('is cut where the client takes nothing and the engine nothing either', async () => {
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
    // The engine's writes fail: it sees the end although it reads nothing.
    await until('the engine is rid of it', () => stuck.open() === 0);
  });

  it('is acknowledged again each time it is told again', async () => {
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    harness.source.revoke(bound.binding.bindingId);
    await until('it is acknowledged', () => harness.source.acknowledged.length === 1);
    harness.source.tell(bound.binding.bindingId);
    await until('and again', () => harness.source.acknowledged.length === 2);
    harness.source.tell('never heard of');
    await until('and what was never known', () => harness.source.acknowledged.includes('never heard of'));
  });

  it('stays revoked though a look-up that began before brings it as live', async () => {
    const harness = await startGateway(world);
    const issued = await world.issue();
    const binding = {
      ...{
        bindingId: 'late',
        serial: issued.serial,
        hostId: 'h1',
        expiresAt: issued.expiresAt,
        asleep: false,
      },
      engine: engine.address,
    };
    harness.source.live.set('late', binding);
    const release = harness.source.hold('readBySerial');
    const client = harness.connect(issued);
    await until('it is being looked up', () => harness.source.countOf('readBySerial') === 1);
    harness.source.revoke('late');
    await turns();
    // Not before the older answer is in: it could bring the binding back afterwards.
    expect(harness.source.acknowledged).toEqual([]);
    release();
    await until('it is acknowledged', () => harness.source.acknowledged.length === 1);
    expect(harness.gateway.state()).toMatchObject({ connections: 0, bindingsHeld: 0 });
    client.socket.write(get('/_ping'));
    expect(await client.ended).not.toContain('200 OK');
    expect(await harness.connect(issued).ask(get('/_ping'))).toMatch(/^HTTP\/1\.1 403/);
  });

  it('is read once more for an event that comes while it is being read', async () => {
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    const client = await openStream(harness, bound);
    const release = harness.source.hold('read');
    harness.source.tell(bound.binding.bindingId);
    await until('it is being read, as live', () => harness.source.countOf('read') === 2);
    harness.source.revoke(bound.binding.bindingId);
    release();
    await until('it is acknowledged', () => harness.source.acknowledged.length === 1);
    await client.ended;
  });

  it('in a crowd is acknowledged like each of the others', async () => {
    const harness = await startGateway(world);
    const ids = Array.from({ length: 300 }, (_, index) => `binding-${index}`);
    const issued = await world.issue();
    for (const bindingId of ids) {
      const { expiresAt } = issued;
      harness.source.put({
        bindingId,
        serial: bindingId,
        hostId: 'h',
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
  it('keeps its streams when it is told of, and is not acknowledged: nothing of it was cut', async () => {
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

  it('is cut when its host moves, and led to the new address; nothing is acknowledged', async () => {
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

  it('is cut when its host loses its address, and served when it has one again', async () => {
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
  it('cuts what is open, and nothing else, though nobody tells of it', async () => {
    const harness = await startGateway(world);
    const later = await harness.bind(engine.address);
    const sooner = await harness.bind(engine.address, { expiresAt: new Date(Date.now() + 1_500) });
    const kept = await openStream(harness, later);
    const client = await openStream(harness, sooner);
    await client.ended;
    expect(Date.now()).toBeGreaterThanOrEqual(sooner.binding.expiresAt.getTime());
    await until('it is counted', () => harness.gateway.state().counters.cut.expired === 1);
    expect(harness.gateway.state().connections).toBe(1);
    kept.socket.end('alive');
    expect(await kept.ended).toContain('alive');
  });

  it('counts for the next piece of data, however late the timer is', async () => {
    let ahead = 0;
    const clock = { monotonic: () => performance.now(), wall: () => Date.now() + ahead };
    // A lease so long that the clock's jump does not end it.
    const harness = await startGateway(world, { clock, leaseMs: 10 * 86_400_000, renewEveryMs: 86_400_000 });
    const client = await openStream(harness, await harness.bind(engine.address));
    const before = engine.bytes();
    ahead = 2 * 86_400_000;
    client.socket.write('late');
    await client.ended;
    await until('the engine is rid of it', () => engine.open() === 0);
    expect(engine.bytes()).toBe(before);
    expect(harness.gateway.state().counters.cut.expired).toBe(1);
  });
});
