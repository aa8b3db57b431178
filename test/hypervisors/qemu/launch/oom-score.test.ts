import { expect, it } from 'vitest';
import { oomScore } from '../../../../src/hypervisors/qemu/launch/oom-score.ts';

const shape = (memoryMib: number) => ({ vcpus: 1, memoryMib, diskGib: 10 });
const node = { totalMib: 16_384, overcommit: 4 };
/** Badness of a process as the kernel computes it (mm/oom_kill.c), in thousandths of the node's memory. */
const badness = (memoryMib: number, usedMib: number) =>
  (1000 * usedMib) / node.totalMib + oomScore(shape(memoryMib), node);

it('OOM score: the host furthest beyond its share is ended first, in any plan', () => {
  // Fails with one score for all hosts: the larger one was first.
  expect(badness(1024, 1024)).toBeGreaterThan(badness(4096, 1200));
  expect(badness(4096, 4096)).toBeGreaterThan(badness(1024, 1024));
});

it('OOM score: any host is ended before an unprotected program of the same size', () => {
  expect(oomScore(shape(4096), node)).toBeGreaterThan(0);
  expect(oomScore(shape(65_536), { totalMib: 8_192, overcommit: 1 })).toBeGreaterThan(0);
});
