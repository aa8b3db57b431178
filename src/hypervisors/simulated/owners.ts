import type { HostSpec } from '../../core/hypervisor/host-spec.ts';
import type { OwnerRecords } from '../with-owners.ts';
import type { HostFiles } from './host-files.ts';

/** What the hosts' files say about whose they are. */
export function createOwnerRecords(files: HostFiles): OwnerRecords {
  return {
    async read(hostId) {
      const host = await files.readHost(hostId);
      if (host === undefined) return undefined;
      const { owner, slot } = host.spec;
      return { owner, slot, hasRun: (await files.readDisk(hostId)).hasRun };
    },
    hostIds: () => files.hostIds(),
    slotByDisk: (hostId) => files.slotByDisk(hostId),
  };
}

/** Writes the owner into the host's file; survives a power cut from the moment this returns. */
export async function recordOwner(files: HostFiles, { hostId, owner }: HostSpec): Promise<void> {
  if (owner === undefined || (await files.readHost(hostId))?.spec.owner === owner) return;
  await files.changeHost(hostId, ({ spec, vm }) => ({ spec: { ...spec, owner }, vm }), { durable: true });
}

/** The spec as it is recorded until the host is started for its owner. */
export function omitOwner(spec: HostSpec): HostSpec {
  const { owner, ...rest } = spec;
  return owner === undefined ? spec : rest;
}
