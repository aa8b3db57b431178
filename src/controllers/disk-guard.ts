import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { DiskSpace } from '../core/hypervisor/run-state.ts';
import type { Host } from '../core/model/host.ts';
import type { AdmissionRules } from '../core/model/node-memory.ts';
import type { Records } from '../core/ports/store.ts';
import type { Logger } from '../lib/logger.ts';
import { withTimeout } from '../lib/with-timeout.ts';

/** Keeps running VMs from the node's reserve of disk space: the hosts that write most are halted before it is used up. */
export interface DiskGuard {
  runOnce(): Promise<void>;
  /** Whether this guard has halted the host. */
  isHeld(hostId: string): boolean;
  /** The host was seen running. */
  forget(hostId: string): void;
  /** Whether a halted host may continue: a quarter more than the reserve is free, so that it does not flap. */
  hasRoom(): Promise<boolean>;
}

/** What a host wrote within this time counts as recent. Milliseconds. */
const windowMs = 60_000;
/** A guest that does nothing still writes its logs. */
const idleBytes = 1024 ** 2;
/** Postgres may be on the same disk, and slow or down because of it. Milliseconds. */
const rowsTimeoutMs = 1_000;
const mib = 1024 ** 2;
const gib = 1024 ** 3;

/**
 * Below the reserve, each run halts the host that has grown most lately, hosts of tenants beyond their share of the disk
 * first; below half of it, all that have grown. Hosts that Postgres does not know are halted, too. Needs no disk space,
 * and of Postgres only who owns the hosts, as last read.
 */
export function createDiskGuard(deps: {
  readonly records: Pick<Records, 'livingHosts'>;
  readonly hypervisor: Pick<Hypervisor, 'halt' | 'haltOf' | 'diskSpace' | 'list'>;
  readonly logger: Logger;
  readonly rules: AdmissionRules;
}): DiskGuard {
  const { records, hypervisor, logger, rules } = deps;
  const reserve = rules.reserveMib * mib;
  const held = new Set<string>();
  let history: readonly { readonly at: number; readonly bytes: ReadonlyMap<string, number> }[] = [];
  let rows: ReadonlyMap<string, Host> = new Map();

  async function refreshRows(): Promise<void> {
    try {
      const hosts = await withTimeout(rowsTimeoutMs, 'reading the hosts', records.livingHosts());
      rows = new Map(hosts.map((host) => [host.id, host]));
    } catch (error) {
      logger.warn({ err: error }, 'The hosts could not be read; guarding the disk by what is known of them');
    }
  }

  /** Growth since the oldest measurement of this host within the window. */
  function growthOf(hostId: string, { hostBytes }: DiskSpace): number {
    const before = history.find(({ bytes }) => bytes.has(hostId))?.bytes.get(hostId) ?? Infinity;
    return (hostBytes.get(hostId) ?? 0) - before;
  }

  /** Whether the hosts of this host's tenant take more than its plans entitle them to on an overcommitted disk. */
  function isBeyondShare(hostId: string, { hostBytes }: DiskSpace): boolean {
    const tenantId = rows.get(hostId)?.tenantId;
    if (tenantId === undefined) return false;
    const surplus = [...rows.values()]
      .filter((host) => host.tenantId === tenantId)
      .map(({ id, shape }) => (hostBytes.get(id) ?? 0) - (shape.diskGib * gib) / rules.overcommit);
    return surplus.reduce((sum, bytes) => sum + bytes, 0) > 0;
  }

  /** Running hosts that have grown lately, in the order in which they are to be halted. */
  async function writers(space: DiskSpace): Promise<readonly string[]> {
    return (await hypervisor.list())
      .filter(({ state, parked }) => state === 'running' && !parked)
      .map(({ hostId }) => hostId)
      .filter((id) => growthOf(id, space) > idleBytes)
      .sort(
        (one, other) =>
          Number(isBeyondShare(other, space)) - Number(isBeyondShare(one, space)) ||
          growthOf(other, space) - growthOf(one, space),
      );
  }

  /** @returns false if it was halted before, or could not be. */
  async function halt(hostId: string, { availableBytes }: DiskSpace): Promise<boolean> {
    const host = { host: hostId, tenant: rows.get(hostId)?.tenantId };
    try {
      if ((await hypervisor.haltOf(hostId)) !== undefined) return false;
      await hypervisor.halt(hostId);
    } catch (error) {
      logger.error(
        { ...host, err: error },
        'A host that fills the disk could not be halted; retrying in 1 s',
      );
      return false;
    }
    held.add(hostId);
    const availableMib = Math.floor(availableBytes / mib);
    logger.error(
      { event: 'host.halted', ...host, availableMib, reserveMib: rules.reserveMib },
      "Less than the disk's reserve is free; a host that writes much was halted until there is room",
    );
    return true;
  }

  return {
    isHeld: (hostId) => held.has(hostId),
    forget: (hostId) => held.delete(hostId),

    async hasRoom() {
      const space = await hypervisor.diskSpace();
      return space === undefined || space.availableBytes >= 1.25 * reserve;
    },

    async runOnce() {
      const space = await hypervisor.diskSpace();
      if (space === undefined) return;
      const { availableBytes, hostBytes } = space;
      const at = performance.now();
      history = [...history.filter((one) => at - one.at < windowMs), { at, bytes: hostBytes }];
      for (const id of held) if (!hostBytes.has(id)) held.delete(id);
      if (availableBytes >= reserve) return;
      await refreshRows();
      const chosen = await writers(space);
      if (availableBytes < reserve / 2) {
        await Promise.all(chosen.map((id) => halt(id, space)));
        return;
      }
      for (const id of chosen) if (await halt(id, space)) return;
    },
  };
}
