import { beforeAll, describe, expect, it } from 'vitest';
import { createWorld, type World } from './support/certificates.ts';
import { createHttpEngine, type StandIn } from './support/engine.ts';
import { type Bound, get, type Harness, openStream, startGateway } from './support/harness.ts';
import { until } from './support/until.ts';

let world: World;
let engine: StandIn;

beforeAll(async () => {
  world = await createWorld();
  engine = await createHttpEngine();
  return () => engine.close();
});

const ping = (harness: Harness, bound: Bound) => harness.connect(bound).ask(get('/_ping'));

describe('a process that was suspended', () => {
  const day = 86_400_000;
  /** No timer fires during a test: only code that reads the clock can notice the jump. */
  const noTimers = { leaseMs: day, renewEveryMs: day };

  it.each([
    ['both clocks advanced', { monotonic: 2 * day, wall: 2 * day }],
    ['the monotonic clock did not advance, as on a suspended node', { monotonic: 0, wall: day }],
    ['the monotonic clock advanced and the wall clock was set back', { monotonic: day, wall: -day }],
  ])('suspended process: passes no byte to the engine after the lease ended (%s)', async (_, jump) => {
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
    // The first chunk ends the lease, which cuts all streams, including the silent one.
    await Promise.all([talking.ended, silent.ended]);
    await until('both connections to the engine are closed', () => engine.open() === 0);
    expect(engine.bytes()).toBe(before);
    expect(harness.gateway.state().counters.cut['lease-lost']).toBe(2);
    await until('it is in sync', () => harness.gateway.state().inSync);
    expect(await ping(harness, bound)).toContain('200 OK');
  });

  it('suspended process: passes no byte to the client after the lease ended', async () => {
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

  it('suspended process: a renewal does not revive an expired lease, and silent streams are cut', async () => {
    let ahead = 0;
    const clock = { monotonic: () => performance.now() + ahead, wall: () => Date.now() + ahead };
    const harness = await startGateway(world, { clock, leaseMs: day, renewEveryMs: 50 });
    const bound = await harness.bind(engine.address, { expiresAt: new Date(Date.now() + 10 * day) });
    const client = await openStream(harness, bound);
    ahead = 2 * day;
    await client.ended;
    expect(harness.gateway.state().counters.cut['lease-lost']).toBe(1);
  });

  it('suspended process: admits no client after the lease ended', async () => {
    let ahead = 0;
    const clock = { monotonic: () => performance.now() + ahead, wall: () => Date.now() + ahead };
    const harness = await startGateway(world, { ...noTimers, clock });
    const bound = await harness.bind(engine.address, { expiresAt: new Date(Date.now() + 10 * day) });
    await until('it is known', () => harness.gateway.state().cachedBindings === 1);
    const recover = harness.source.fail('open');
    const before = engine.connections();
    ahead = 2 * day;
    expect(await ping(harness, bound)).toMatch(/^HTTP\/1\.1 503/);
    expect(engine.connections()).toBe(before);
    recover();
    await until('it is in sync', () => harness.gateway.state().inSync);
  });
});
