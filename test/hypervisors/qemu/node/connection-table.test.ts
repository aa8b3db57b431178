import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, it } from 'vitest';
import { connectionTableProblem } from '../../../../src/hypervisors/qemu/node/connection-table.ts';

it('connection table: the problem names the size that all hosts at their limits need', async () => {
  const directory = await mkdtemp(path.join(tmpdir(), 'berth-table-'));
  const file = path.join(directory, 'nf_conntrack_max');
  const limits = { connections: 4096, bandwidthMbit: 1000 };
  try {
    await writeFile(file, '262144\n');
    expect(await connectionTableProblem(limits, 0, file)).toBeUndefined();
    const problem = await connectionTableProblem(limits, 36, file);
    expect(problem).toMatch(/^net\.netfilter\.nf_conntrack_max is 262144, but 37 hosts/);
    const [, needed = ''] = /need (\d+) entries/.exec(problem ?? '') ?? [];
    await writeFile(file, needed);
    expect(await connectionTableProblem(limits, 36, file)).toBeUndefined();
    expect(await connectionTableProblem(limits, 36, '/nonexistent')).toBeUndefined();
  } finally {
    await rm(directory, { recursive: true });
  }
});
