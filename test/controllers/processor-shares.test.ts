import { expect, it } from 'vitest';
import { createProcessorShares } from '../../src/controllers/processor-shares.ts';
import type { Host } from '../../src/core/model/host.ts';

/** Milliseconds of processor time by host, and the weights that were set last. */
function makeNode(owners: Readonly<Record<string, string | undefined>>) {
  const times = new Map(Object.keys(owners).map((id) => [id, 0]));
  const weights = new Map<string, number>();
  let writes = 0;
  let nowMs = 0;
  const hosts = Object.entries(owners).map(([id, tenantId]) => ({ id, tenantId }) as Host);
  const shares = createProcessorShares({
    records: { livingHosts: () => Promise.resolve(hosts) },
    hypervisor: {
      processorTimes: () => Promise.resolve(new Map(times)),
      setProcessorWeights(changed) {
        writes += 1;
        for (const [id, weight] of changed) weights.set(id, weight);
        return Promise.resolve();
      },
    },
    now: () => nowMs,
  });
  return {
    times,
    writes: () => writes,
    weightOf: (id: string) => weights.get(id) ?? 1,
    /** Two seconds in which each of these hosts uses half a processor. */
    async pass(...busy: readonly string[]) {
      nowMs += 2_000;
      for (const id of busy) times.set(id, (times.get(id) ?? 0) + 1_000);
      await shares.runOnce();
    },
  };
}

// Fails if every host has the same weight.
it('processor shares: the busy hosts of a tenant have the weight of one; idle hosts keep theirs', async () => {
  const node = makeNode({ a1: 'a', a2: 'a', a3: 'a', a4: 'a', b1: 'b', pool1: undefined, pool2: undefined });
  await node.pass('a1', 'a2', 'a3', 'b1');
  expect(['a1', 'a2', 'a3', 'a4', 'b1'].map(node.weightOf)).toEqual([1 / 3, 1 / 3, 1 / 3, 1, 1]);
  await node.pass('a1', 'pool1', 'pool2', 'b1');
  expect(['a1', 'a2', 'pool1', 'pool2', 'b1'].map(node.weightOf)).toEqual([1, 1, 0.5, 0.5, 1]);
});

it('processor shares: nothing is written if no weight changes, and a host that has gone is forgotten', async () => {
  const node = makeNode({ a1: 'a', a2: 'a' });
  await node.pass();
  expect(node.writes()).toBe(0);
  await node.pass('a1', 'a2');
  await node.pass('a1', 'a2');
  expect(node.writes()).toBe(1);
  node.times.delete('a2');
  await node.pass('a1');
  expect(node.weightOf('a1')).toBe(1);
});
