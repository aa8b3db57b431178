import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { hostname } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import type { Settings } from '../config/settings.ts';
import { InstallationError } from '../core/installation.ts';
import type { PoolRecords } from '../core/ports/pool-records.ts';

/** If no worker of a state directory renews the lease for this time, those of another one may take it. */
const leaseMs = 15_000;
export const renewHostsLeaseEveryMs = 5_000;

/**
 * The lease on the installation's hosts. All workers of one state directory have it together: they share its host
 * locks. Those of a copy of the directory, of another node or with another hypervisor are refused, since they would
 * find none of the hosts and make each a second time.
 */
export interface HostsLease {
  /** False if workers of another state directory have it. */
  renew(): Promise<boolean>;
  /**
   * Waits until a lease of former workers has run out.
   * @throws InstallationError if it is being renewed.
   */
  acquire(): Promise<void>;
}

export async function createHostsLease(
  records: Pick<PoolRecords, 'acquireLeadership'>,
  settings: Settings,
): Promise<HostsLease> {
  const holder = await holderOf(settings);
  const renew = () => records.acquireLeadership('hosts', holder, leaseMs);
  return {
    renew,
    async acquire() {
      const deadline = performance.now() + leaseMs + renewHostsLeaseEveryMs;
      while (!(await renew())) {
        if (performance.now() > deadline) throw refusal(settings);
        await delay(500);
      }
    },
  };
}

const refusal = ({ stateDirectory }: Settings) =>
  new InstallationError(
    [
      `A worker with another state directory, on another node or with another hypervisor than this one (${stateDirectory}) is running the hosts of this installation. Nothing was changed.`,
      'If this is a copy of the state directory, stop the other worker first, and never run both.',
      'A second installation needs another database and a new state directory.',
    ].join('\n  - '),
  );

/** A UUID of this very directory, on this node, with this hypervisor: a copy has another one. */
async function holderOf({ stateDirectory, hypervisor }: Settings): Promise<string> {
  const node = await readFile('/etc/machine-id', 'utf8').catch(() => hostname());
  const { dev, ino } = await stat(stateDirectory);
  const digest = createHash('sha256').update([node.trim(), dev, ino, hypervisor].join('\n')).digest('hex');
  return digest.slice(0, 32).replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
