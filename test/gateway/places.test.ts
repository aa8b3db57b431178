import { randomUUID } from 'node:crypto';
import { beforeAll, expect, it } from 'vitest';
import { defaultLimits } from '../../src/gateway/limits.ts';
import { createPlaces } from '../../src/gateway/places.ts';
import { sourceOf } from '../../src/gateway/source-address.ts';
import { createWorld, type World } from './support/certificates.ts';
import { startHttpEngine } from './support/engine.ts';
import { get, openStream, startGateway } from './support/harness.ts';
import { expectRefused } from './support/refused.ts';
import { until } from './support/until.ts';

let world: World;

beforeAll(async () => {
  world = await createWorld();
});

// Fails without a limit for each tenant.
it('places: three bindings of one tenant leave room for another tenant', async () => {
  const engine = await startHttpEngine();
  const harness = await startGateway(world, { limits: { maxConnections: 12 } });
  const tenantId = randomUUID();
  const bindings = await Promise.all([1, 2, 3].map(() => harness.bind(engine.address, { tenantId })));
  for (const bound of bindings) for (let count = 0; count < 2; count += 1) await openStream(harness, bound);
  await expectRefused(harness, bindings[0], {
    ...{ status: 503, reason: 'too-many-of-tenant' },
    message: /too many connections to container hosts of your organization are open/,
  });
  expect(await harness.connect(await harness.bind(engine.address)).ask(get('/_ping'))).toContain('200 OK');
});

it('places: two bindings of one host share the limit of the host, and a closed connection makes room', async () => {
  const engine = await startHttpEngine();
  const harness = await startGateway(world, { limits: { maxConnectionsPerHost: 2 } });
  const hostId = randomUUID();
  const [one, other] = [
    await harness.bind(engine.address, { hostId }),
    await harness.bind(engine.address, { hostId }),
  ];
  const streams = [await openStream(harness, one), await openStream(harness, other)];
  await expectRefused(harness, one, {
    ...{ status: 503, reason: 'too-many-of-host' },
    message: /too many connections to your container host are open/,
  });
  streams[0]?.socket.destroy();
  await until('the stream is closed', () => harness.gateway.state().connections === 1);
  expect(await harness.connect(one).ask(get('/_ping'))).toContain('200 OK');
});

it('places: each further tenant gets its share, and nobody the last part', () => {
  const places = createPlaces({ ...defaultLimits, maxConnections: 120 });
  const take = (tenantId: string) => {
    const binding = {
      ...{ bindingId: tenantId, serial: '', expiresAt: new Date(), hostId: tenantId, tenantId },
      ...{ engine: undefined, asleep: false },
    };
    let count = 0;
    while (typeof places.take(binding) === 'function') count += 1;
    return count;
  };
  // Half of the whole, then half of what is left each time.
  expect(['one', 'two', 'three', 'four'].map(take)).toEqual([60, 30, 15, 8]);
});

it('source address: all addresses of one IPv6 network count as one, a mapped IPv4 address as itself', () => {
  expect(sourceOf('::ffff:192.0.2.7')).toBe('192.0.2.7');
  expect(sourceOf('192.0.2.7')).toBe('192.0.2.7');
  expect(sourceOf('2001:db8:1:2:3:4:5:6')).toBe('2001:db8:1:2::/64');
  expect(sourceOf('2001:db8::1')).toBe('2001:db8:0:0::/64');
  expect(sourceOf('::1')).toBe('0:0:0:0::/64');
});
