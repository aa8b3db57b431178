import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import type { HostSpec } from '../../core/hypervisor/host-spec.ts';
import { HypervisorError } from '../../core/hypervisor/hypervisor-error.ts';
import { addressPairs } from '../../lib/ipv4.ts';
import { isUuid } from '../../lib/uuid.ts';
import { type HostRecord, readHostRecord } from './host-record.ts';
import type { Cgroups } from './launch/cgroups.ts';
import { type HostLayout, layoutOf } from './layout.ts';
import type { QemuOptions } from './options.ts';

/** The hosts that exist on this node, found by their folders, records and processes. */
export interface Hosts {
  /** Contains one folder per host. */
  readonly directory: string;
  layout(hostId: string, slot: number): HostLayout;
  layoutOfSpec(spec: HostSpec): HostLayout;
  /** Undefined if the host does not exist, or only its folder does. @throws HostDisputedError if it is unreadable. */
  record(hostId: string): Promise<HostRecord | undefined>;
  /** The slot of a host whose record is unreadable, by the owner of its disk's file; undefined if it has none. */
  slotByDisk(hostId: string): Promise<number | undefined>;
  /** @throws HypervisorError if the host is not prepared, or its record is unreadable. */
  requireRecord(hostId: string): Promise<HostRecord>;
  /** Whether any process of the host runs. */
  isAlive(hostId: string): Promise<boolean>;
  /** Half-made hosts included. */
  ids(): Promise<readonly string[]>;
}

export function createHosts(options: QemuOptions, cgroups: Cgroups): Hosts {
  const directory = path.join(options.stateDirectory, 'hosts');
  const layout = (hostId: string, slot: number) => layoutOf(options, hostId, slot);
  const record = (hostId: string) => readHostRecord(path.join(directory, hostId, 'host.json'));
  return {
    directory,
    layout,
    layoutOfSpec: (spec) => layout(spec.hostId, spec.slot),
    record,
    async slotByDisk(hostId) {
      // A host's paths follow from its id, and not from its slot.
      const { disk } = layout(hostId, 0);
      const uid = (await stat(disk).catch(() => undefined))?.uid ?? 0;
      const slot = uid - options.firstUid;
      return slot >= 1 && slot <= addressPairs(options.hostNetwork) ? slot : undefined;
    },
    async requireRecord(hostId) {
      const found = await record(hostId);
      if (found === undefined) throw new HypervisorError(`host ${hostId} has not been prepared`);
      return found;
    },
    isAlive: async (hostId) => (await cgroups.processes(hostId)).length > 0,
    ids: async () => (await readdir(directory).catch(() => [])).filter((name) => isUuid(name)),
  };
}
