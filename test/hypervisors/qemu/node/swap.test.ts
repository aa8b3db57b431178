import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { swapProblem } from '../../../../src/hypervisors/qemu/node/swap.ts';

const headings = 'Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n';
let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'berth-swap-'));
  await mkdir(path.join(folder, 'cgroup', 'system.slice'), { recursive: true });
});
afterEach(() => rm(folder, { recursive: true }));

async function problem(swaps: string) {
  const file = path.join(folder, 'swaps');
  await writeFile(file, swaps);
  return swapProblem(file, path.join(folder, 'cgroup'));
}

// Fails if the control groups' abilities are ignored.
it("swap check: reports active swap only if control groups can't keep tenants' memory out of it", async () => {
  const active = `${headings}/dev/sda2   partition\t1048572\t\t0\t\t-2\n`;
  expect(await problem(headings)).toBeUndefined();
  expect(await problem(active)).toMatch(/uses swap \(\/dev\/sda2\)/);
  await writeFile(path.join(folder, 'cgroup', 'system.slice', 'memory.swap.max'), 'max\n');
  expect(await problem(active)).toBeUndefined();
});
