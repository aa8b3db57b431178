import { readdir, readFile, stat } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import type { HostLayout } from '../layout.ts';

const longestEndMs = 30_000;

/**
 * The processes of a host wherever they are: also those that somebody has moved out of its control group. They have
 * its user and its network namespace, neither of which they can get rid of. It looks at every process of the machine:
 * not for what is asked often.
 */
export async function processesOf(place: HostLayout): Promise<readonly number[]> {
  const network = await inodeOf(place.netnsPath);
  if (network === undefined) return [];
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const own = await Promise.all(
    pids.map(async (pid) => {
      const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
      const isUsers = /^Uid:\s+(\d+)/m.exec(status)?.[1] === String(place.uid);
      // One that has ended and was not waited for has neither memory nor namespace.
      return isUsers && (await inodeOf(`/proc/${pid}/ns/net`)) === network ? [Number(pid)] : [];
    }),
  );
  return own.flat();
}

/** Ends them, and waits until they are gone. @throws HypervisorError where one does not go. */
export async function killLeakedProcesses(place: HostLayout): Promise<void> {
  const deadline = performance.now() + longestEndMs;
  for (let left = await processesOf(place); left.length > 0; left = await processesOf(place)) {
    if (performance.now() > deadline) {
      throw new HypervisorError(
        `Processes of ${place.id} have not ended ${longestEndMs / 1000} s after they were killed: ${left.join(', ')}`,
      );
    }
    for (const pid of left) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It has just ended.
      }
    }
    await delay(5);
  }
}

const inodeOf = (file: string) =>
  stat(file).then(
    ({ ino }) => ino,
    () => undefined,
  );
