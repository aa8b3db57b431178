import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { residueOf } from '../../../tools/lib/residue.ts';
import { eventually } from '../../support/eventually.ts';

const execute = promisify(execFile);

/** A reboot removes processes, namespaces, firewall rules, control groups, and all of /run. Expects that no VM runs. */
export async function removeWhatARebootRemoves(site: string, stateDirectory: string): Promise<void> {
  await execute('pkill', ['-KILL', '-f', `${stateDirectory}/postgres`]).catch(() => undefined);
  for (const line of await residueOf(site)) {
    const namespace = /^ip: (berth-\w+-\d+)/.exec(line)?.[1];
    const group = /^cgroup (\S+)/.exec(line)?.[1];
    if (namespace !== undefined) await execute('ip', ['netns', 'delete', namespace]);
    // The group of processes that have just ended stays busy for a moment.
    if (group !== undefined) {
      await eventually(`${group} is removed`, () =>
        execute('rmdir', [group]).then(
          () => true,
          () => false,
        ),
      );
    }
  }
  await execute('nft', ['delete', 'table', 'inet', `berth_${site}`]);
  await execute('rm', ['-rf', `/run/berth-${site}`]);
  await eventually('nothing of it is left', async () => (await residueOf(site)).length === 0);
}
