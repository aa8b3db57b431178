import { readdir, readFile, stat } from 'node:fs/promises';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import type { HostLayout } from '../layout.ts';
import { killUntilGone } from '../../../lib/kill-until-gone.ts';

const longestEndMs = 30_000;

/**
 * The processes of a host, also those outside its control group: they have the host's user and network namespace,
 * neither of which they can change. Expensive, because it reads every process of the node.
 */
export async function processesOf(layout: HostLayout): Promise<readonly number[]> {
  const network = await inodeOf(layout.netnsPath);
  if (network === undefined) return [];
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const own = await Promise.all(
    pids.map(async (pid) => {
      const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
      const isUsers = /^Uid:\s+(\d+)/m.exec(status)?.[1] === String(layout.uid);
      // A zombie has neither memory nor a namespace.
      return isUsers && (await inodeOf(`/proc/${pid}/ns/net`)) === network ? [Number(pid)] : [];
    }),
  );
  return own.flat();
}

/** Kills a host's processes and waits until they are gone. @throws HypervisorError if one stays. */
export async function killLeakedProcesses(layout: HostLayout): Promise<void> {
  const left = await killUntilGone(() => processesOf(layout), longestEndMs);
  if (left.length > 0) {
    throw new HypervisorError(
      `Processes of ${layout.id} have not ended ${longestEndMs / 1000} s after they were killed: ${left.join(', ')}`,
    );
  }
}

const inodeOf = (file: string) =>
  stat(file).then(
    ({ ino }) => ino,
    () => undefined,
  );
