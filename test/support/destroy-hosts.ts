import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { processesWith, removeInstallationTraces, residueOf } from '../../tools/lib/residue.ts';
import { eventually } from './eventually.ts';

/** Leaves nothing of an installation's hosts on the node, even after a test that has failed in the middle. */
export async function destroyHosts(site: string): Promise<void> {
  const run = (program: string, ...args: string[]) =>
    promisify(execFile)(program, args).catch(() => undefined);
  for (const { pid } of await processesWith(`berth-${site}-`)) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It has ended already.
    }
  }
  await eventually('every QEMU has ended', async () => (await processesWith(`berth-${site}-`)).length === 0);
  // A control group is busy until the kernel has released its last process.
  await eventually('nothing is left of the hosts', async () => {
    for (const line of await residueOf(site)) {
      const link = /^ip: (bh\w+)[@ ]/.exec(line)?.[1];
      const namespace = /^ip: (berth-\w+-\d+)/.exec(line)?.[1];
      const group = /^cgroup (\S+)/.exec(line)?.[1];
      if (link !== undefined) await run('ip', 'link', 'delete', link);
      if (namespace !== undefined) await run('ip', 'netns', 'delete', namespace);
      if (group !== undefined) await run('rmdir', group);
    }
    // The table's elements are removed with it.
    return (await residueOf(site)).every((line) => line.startsWith('nft:'));
  });
  await removeInstallationTraces(site);
}
