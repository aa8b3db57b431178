import { beforeAll, expect, it } from 'vitest';
import { createWorld, type World } from './support/certificates.ts';
import { createHttpEngine, type StandIn } from './support/engine.ts';
import { get, openStream, startGateway } from './support/harness.ts';
import { until } from './support/until.ts';

let world: World;
let engine: StandIn;

beforeAll(async () => {
  world = await createWorld();
  engine = await createHttpEngine();
  return () => engine.close();
});

const day = 86_400_000;

/** A gateway with an open stream, whose clock a test advances as if its thread had been busy meanwhile. */
async function gatewayWithStream() {
  let ahead = 0;
  const clock = { monotonic: () => performance.now() + ahead, wall: () => Date.now() + ahead };
  const harness = await startGateway(world, { clock, leaseMs: day, renewEveryMs: day });
  const bound = await harness.bind(engine.address, { expiresAt: new Date(Date.now() + 10 * day) });
  const client = await openStream(harness, bound);
  return { harness, bound, client, beBusy: (ms: number) => (ahead += ms) };
}

// Fails without the other thread's renewals: the first byte ends the lease, and the stream with it.
it('lease: continues after its thread was busy for longer than it, if another thread renewed it', async () => {
  const { harness, bound, client, beBusy } = await gatewayWithStream();
  harness.source.sinceRenewal = () => 1_000;
  beBusy(2 * day);
  client.socket.end('still here');
  expect(await client.ended).toContain('still here');
  expect(harness.gateway.state().counters.cut['lease-lost']).toBe(0);
  expect(await harness.connect(bound).ask(get('/_ping'))).toContain('200 OK');
});

it('lease: ends once the other thread no longer renews it', async () => {
  const { harness, client, beBusy } = await gatewayWithStream();
  harness.source.sinceRenewal = () => day;
  beBusy(2 * day);
  client.socket.write('rm -rf');
  await client.ended;
  expect(client.received()).not.toContain('rm -rf');
  await until('it is counted', () => harness.gateway.state().counters.cut['lease-lost'] === 1);
});
