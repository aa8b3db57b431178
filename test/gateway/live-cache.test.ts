import { beforeAll, describe, expect, it } from 'vitest';
import type { LiveBinding } from '../../src/core/ports/live-bindings.ts';
import { createLiveCache } from '../../src/gateway/live-cache.ts';
import { createWorld, type World } from './support/certificates.ts';
import { createHttpEngine, type StandIn } from './support/engine.ts';
import { get, openStream, startGateway } from './support/harness.ts';

const binding = (name: string): LiveBinding => ({
  bindingId: name,
  serial: `serial of ${name}`,
  expiresAt: new Date(0),
  hostId: 'host',
  tenantId: 't1',
  asleep: false,
  engine: { host: '127.0.0.1', port: 1 },
});
const names = (count: number) => Array.from({ length: count }, (_, index) => `binding ${index}`);

function makeCache(capacity: number, open: readonly string[] = []) {
  const invalidated: string[] = [];
  const cache = createLiveCache({
    capacity,
    isOpen: (bindingId) => open.includes(bindingId),
    onRead: () => undefined,
    onInvalidated: (bindingId) => invalidated.push(bindingId),
  });
  return { cache, invalidated };
}

describe('the cache', () => {
  it('live cache: contains the newest bindings up to its capacity, and eviction invalidates nothing', () => {
    const { cache, invalidated } = makeCache(100);
    for (const name of names(5_000)) {
      cache.put(binding(name));
      expect(cache.size()).toBeLessThanOrEqual(100);
      expect(cache.bySerial(`serial of ${name}`)?.bindingId).toBe(name);
    }
    expect(cache.size()).toBeGreaterThanOrEqual(90);
    expect(cache.bySerial('serial of binding 0')).toBeUndefined();
    expect(invalidated).toEqual([]);
  });

  it('live cache: never evicts bindings with open streams, even beyond its capacity', () => {
    const open = names(200);
    const { cache, invalidated } = makeCache(100, open);
    for (const name of open) cache.put(binding(name));
    cache.put(binding('idle'));
    expect(cache.forgetIdle()).toEqual(open);
    expect(cache.bySerial('serial of idle')).toBeUndefined();
    cache.remove('binding 7');
    expect(invalidated).toEqual(['binding 7']);
  });

  it('live cache: invalidates a binding whose route changed, and forgets its former serial', () => {
    const { cache, invalidated } = makeCache(100);
    cache.put(binding('one'));
    cache.put({ ...binding('one') });
    expect(invalidated).toEqual([]);
    cache.put({ ...binding('one'), serial: 'another' });
    expect(invalidated).toEqual(['one']);
    expect(cache.bySerial('serial of one')).toBeUndefined();
    expect(cache.bySerial('another')?.bindingId).toBe('one');
    expect(cache.size()).toBe(1);
  });
});

describe('a gateway with a small cache', () => {
  let world: World;
  let engine: StandIn;

  beforeAll(async () => {
    world = await createWorld();
    engine = await createHttpEngine();
    return () => engine.close();
  });

  it('gateway: serves more bindings than it caches, and cuts an old stream when its binding is revoked', async () => {
    const harness = await startGateway(world, { limits: { maxCachedBindings: 4 } });
    const first = await harness.bind(engine.address);
    const client = await openStream(harness, first);
    const others = [];
    for (let count = 0; count < 12; count += 1) others.push(await harness.bind(engine.address));
    for (const other of others) {
      expect(await harness.connect(other).ask(get('/_ping'))).toContain('200 OK');
      expect(harness.gateway.state().cachedBindings).toBeLessThanOrEqual(5);
    }
    harness.source.revoke(first.binding.bindingId);
    await client.ended;
    expect(harness.gateway.state().counters.cut.invalidated).toBe(1);
  });
});
