import { expect, it } from 'vitest';
import { createProcessorShares } from '../../src/controllers/processor-shares.ts';
import type { Host } from '../../src/core/model/host.ts';

/** A node with busy and idle hosts, and the weights that its worker has set. */
function makeNode(owners: Readonly<Record<string, string | undefined>>) {
  const times = new Map(Object.keys(owners).map((id) => [id, 0]));
  const weights = new Map<string, number>();
  let lastSet: readonly string[] = [];
  let nowMs = 0;
  const hosts = Object.entries(owners).map(([id, tenantId]) => ({ id, tenantId }) as Host);
  const startWorker = () =>
    createProcessorShares({
      records: { livingHosts: () => Promise.resolve(hosts) },
      hypervisor: {
        processorTimes: () => Promise.resolve(new Map(times)),
        setProcessorWeights(all) {
          lastSet = [...all.keys()];
          for (const [id, weight] of all) weights.set(id, weight);
          return Promise.resolve();
        },
      },
      now: () => nowMs,
    });
  let shares = startWorker();
  return {
    times,
    lastSet: () => lastSet,
    restartWorker: () => {
      shares = startWorker();
    },
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
  await node.pass();
  await node.pass('a1', 'a2', 'a3', 'b1');
  expect(['a1', 'a2', 'a3', 'a4', 'b1'].map(node.weightOf)).toEqual([1 / 3, 1 / 3, 1 / 3, 1, 1]);
  await node.pass('a1', 'pool1', 'pool2', 'b1');
  expect(['a1', 'a2', 'pool1', 'pool2', 'b1'].map(node.weightOf)).toEqual([1, 1, 0.5, 0.5, 1]);
});

// Fails if only weights that differ from the last ones of the same worker are set.
it('processor shares: a new worker gives idle hosts back the weight that a killed one took', async () => {
  const node = makeNode({ a1: 'a', a2: 'a' });
  await node.pass();
  await node.pass('a1', 'a2');
  expect(['a1', 'a2'].map(node.weightOf)).toEqual([0.5, 0.5]);
  node.restartWorker();
  await node.pass();
  expect(['a1', 'a2'].map(node.weightOf)).toEqual([1, 1]);
});

// Fails without a least weight: cgroups refuse 0.
it('processor shares: no weight is less than a hundredth, and a host that has gone is left out', async () => {
  const ids = Array.from({ length: 300 }, (_, index) => `a${index}`);
  const node = makeNode(Object.fromEntries(ids.map((id) => [id, 'a'])));
  await node.pass();
  await node.pass(...ids);
  expect(node.weightOf('a0')).toBe(0.01);
  node.times.delete('a0');
  await node.pass(...ids.slice(1));
  expect(node.lastSet()).toHaveLength(299);
});
