import { isDeepStrictEqual } from 'node:util';
import { HypervisorError } from '../../core/hypervisor/hypervisor-error.ts';
import type { HostSpec } from '../../core/hypervisor/host-spec.ts';
import { createGuestAgent } from '../../guest/agent.ts';
import type { QemuDeps } from './deps.ts';
import { boundsOf, type HostRecord, writeHostRecord } from './host-record.ts';
import { vmFacts } from './integrity/facts.ts';
import { withGrowth } from './integrity/growth.ts';
import { raiseProcessLimits } from './launch/process-limits.ts';
import { largest } from './launch/sizes.ts';
import type { HostLayout } from './layout.ts';
import { agentTimeoutMs } from './timeouts.ts';

/** A guest that has not taken CPUs, memory and disk into use by then does not want to, or can't. */
const longestGrowthMs = 20_000;

/** Adds to a running host what its spec has more, and waits for its guest: {@link Lifecycle.grow}. */
export async function growHost(deps: QemuDeps, spec: HostSpec): Promise<boolean> {
  const { hosts, vms } = deps;
  const at = hosts.layoutOfSpec(spec);
  await vms.requireAlive(at);
  const found = await hosts.requireRecord(spec.hostId);
  const { bounds } = found;
  const what = `host ${spec.hostId} can't be grown while it runs`;
  if (bounds === undefined) throw new HypervisorError(`${what}: a former version of Berth has started it`);
  const most = largest({ ...found.shape, ...bounds.start }, { ...deps.options.room, ...bounds.room });
  // A disk never shrinks, also not by a rollback.
  const shape = { ...spec.shape, diskGib: Math.max(spec.shape.diskGib, found.shape.diskGib) };
  for (const part of ['vcpus', 'memoryMib', 'diskGib'] as const) {
    if (shape[part] < found.shape[part]) throw new HypervisorError(`${what}: its new size is smaller`);
    if (shape[part] > most[part]) {
      throw new HypervisorError(
        `${what}: it has room for ${most.vcpus} CPUs, ${most.memoryMib} MiB of memory and ${most.diskGib} GiB of disk`,
      );
    }
  }
  // Asked again: only the guest is waited for.
  if (found.growing?.isAdded === true && isDeepStrictEqual(found.shape, shape)) {
    return settleGrowth(deps, at, found);
  }
  const since = found.growing?.since ?? new Date().toISOString();
  const record: HostRecord = {
    ...found,
    planName: spec.planName,
    shape,
    growing: { since, isAdded: false },
  };
  // Recorded first: if this is interrupted, the next start or check gives the host the rest.
  await writeHostRecord(at.record, record);
  return settleGrowth(deps, at, await addWhatIsRecorded(deps, at, record));
}

/**
 * Runs a parked VM for its owner, with what the spec has more than the pool's host; {@link settleGrowth} waits for its guest.
 * @throws HypervisorError if the VM refuses: nobody has used it, and the host can be restored again.
 */
export async function claimHost(
  deps: QemuDeps,
  { owner, planName, shape }: HostSpec,
  at: HostLayout,
  found: HostRecord,
): Promise<void> {
  const claimed: HostRecord = { ...found, owner, planName, parked: false };
  const grows = !isDeepStrictEqual(shape, found.shape);
  const record: HostRecord = grows ? { ...claimed, shape, growing: { isAdded: false } } : claimed;
  // Recorded first: from its first instruction on the VM is its owner's, and nobody else ever gets it.
  await writeHostRecord(at.record, record, true);
  if (grows) await addWhatIsRecorded(deps, at, record);
  await deps.vms.run(at);
}

/**
 * Adds to a running VM what its host's record says, if that was interrupted, and takes it into the manifest.
 * @throws HypervisorError if the VM does not run, or refuses.
 */
export async function completeGrowth(deps: QemuDeps, at: HostLayout, record: HostRecord): Promise<void> {
  if (record.growing === undefined) return;
  if (!record.growing.isAdded) await addWhatIsRecorded(deps, at, record);
  await recordGrowth(deps, at);
}

async function addWhatIsRecorded(
  { cgroups, vms, options }: QemuDeps,
  at: HostLayout,
  record: HostRecord,
): Promise<HostRecord> {
  const { shape } = record;
  // Limits first: a VM that has more than them would be ended.
  await cgroups.make(at.id, shape);
  await raiseProcessLimits(at, cgroups, shape, options.memoryOvercommit ?? 1);
  await vms.grow(at, boundsOf(record).start, shape);
  const added = { ...record, growing: { ...record.growing, isAdded: true } };
  await writeHostRecord(at.record, added);
  return added;
}

/**
 * Waits for the guest of a host that grows, and records that it has all of its shape.
 * @returns false if it has not yet: ask again.
 * @throws HypervisorError if it has not 20 s after an update has begun to wait.
 */
export async function settleGrowth(deps: QemuDeps, at: HostLayout, record: HostRecord): Promise<boolean> {
  if (record.growing === undefined) return true;
  // A worker was killed while it added it.
  if (!record.growing.isAdded) return settleGrowth(deps, at, await addWhatIsRecorded(deps, at, record));
  if (!(await takesShape(deps, at, record))) {
    const { since } = record.growing;
    if (since === undefined || Date.now() - Date.parse(since) < longestGrowthMs) return false;
    throw new HypervisorError(
      `the guest of host ${at.id} has not taken its new CPUs, memory and disk into use within ${longestGrowthMs / 1000} s`,
    );
  }
  await recordGrowth(deps, at);
  await writeHostRecord(at.record, { ...record, growing: undefined });
  return true;
}

/** Writes what the VM has more into its manifest; any other difference stays drift. */
async function recordGrowth({ manifests, cgroups }: QemuDeps, at: HostLayout): Promise<void> {
  const manifest = await manifests.read(at.manifest);
  if (manifest === undefined) return;
  const facts = withGrowth(manifest.facts, await vmFacts(at, cgroups));
  await manifests.write(at.manifest, { ...manifest, facts });
}

/** Whether the guest uses all CPUs, memory and disk of the record's shape; asks it to. */
export async function takesShape(
  { vms }: Pick<QemuDeps, 'vms'>,
  at: HostLayout,
  { shape }: HostRecord,
): Promise<boolean> {
  // The guest adds memory by itself meanwhile.
  const uses = await createGuestAgent(at.agentSocket).grow(shape.vcpus, agentTimeoutMs);
  if (uses === undefined || uses.vcpus < shape.vcpus || uses.diskGib < shape.diskGib) return false;
  return (await vms.sizeOf(at)).memoryMib >= shape.memoryMib;
}
