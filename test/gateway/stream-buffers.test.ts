import { randomUUID } from 'node:crypto';
import { expect, it } from 'vitest';
import type { GatewayLimits } from '../../src/gateway/limits.ts';
import { createStreamBuffers } from '../../src/gateway/stream-buffers.ts';
import { createWorld } from './support/certificates.ts';
import { createStandIn, untilTestEnds } from './support/engine.ts';
import { startGateway } from './support/harness.ts';
import { until } from './support/until.ts';

const world = await createWorld();

it('buffers: beyond the limit, the tenant that has most buffered loses the stream that is behind for longest', () => {
  const cut: string[] = [];
  const buffers = createStreamBuffers({
    ...{ limit: 100, maxStalled: 100, stalledAfterMs: 60_000 },
    onCut: ({ tenantId }) => cut.push(tenantId),
  });
  const stream = (tenantId: string, name: string) => ({ tenantId, cut: () => cut.push(name) });
  const [first, second, other] = [stream('a', 'first'), stream('a', 'second'), stream('b', 'other')];
  buffers.update(other, 40);
  buffers.update(first, 30);
  buffers.update(second, 30);
  buffers.update(first, 0);
  buffers.update(first, 30);
  expect(cut).toEqual([]);
  buffers.update(first, 31);
  expect(cut).toEqual(['second', 'a']);
  expect(buffers.total()).toBe(71);
});

/** A gateway with 30 streams of one tenant and one of another one, whose clients read nothing of an endless answer. */
async function stalledStreams(limits: Partial<GatewayLimits>) {
  const block = Buffer.alloc(1024 * 1024);
  const engine = await untilTestEnds(
    createStandIn((socket) => {
      const pour = () => {
        while (!socket.destroyed && socket.write(block));
      };
      socket.on('drain', pour);
      pour();
    }),
  );
  const harness = await startGateway(world, { limits });
  const mine = await harness.bind(engine.address);
  const theirs = await harness.bind(engine.address, { tenantId: randomUUID() });
  const client = harness.connect(mine);
  client.socket.pause();
  const stalled = Array.from({ length: 30 }, () => harness.connect(theirs));
  for (const { socket } of stalled) socket.pause();
  return { client, state: () => harness.gateway.state() };
}

// Fails without a limit for all streams: none is cut.
it('buffers: streams of clients that read nothing are cut beyond the limit, those of another tenant are not', async () => {
  const { client, state } = await stalledStreams({ maxBufferedBytes: 1024 * 1024 });
  await until('streams are cut', () => state().counters.cut.stalled > 3);
  expect(client.over()).toBe(false);
  expect(state().connections).toBeGreaterThan(1);
});

// Fails without cutStalled: each of them holds megabytes of the kernel's memory until its client reads.
it('buffers: of streams that have stalled for long, those beyond a number are cut, of the tenant that has most', async () => {
  const { client, state } = await stalledStreams({ maxStalledStreams: 8, stalledAfterMs: 200 });
  await until('streams are cut', () => state().counters.cut.stalled === 23);
  await until('they are closed', () => state().connections === 8);
  expect(client.over()).toBe(false);
});
