import type { Capabilities } from '../../core/hypervisor/capabilities.ts';
import type { HostSpec } from '../../core/hypervisor/host-spec.ts';
import { toHostSpec } from '../../core/model/host-spec.ts';
import type { Host } from '../../core/model/host.ts';
import type { UpdateTarget } from '../../core/model/operation.ts';
import { requireHost, type StepContext } from '../step.ts';

/** A host before and after an update. */
export interface HostUpdate {
  readonly host: Host;
  readonly current: HostSpec;
  readonly next: HostSpec;
  readonly changesImage: boolean;
  readonly changesShape: boolean;
  /** Why the VM can't get its new size or image while it runs; undefined: it can, or keeps both. */
  readonly restartReason: string | undefined;
}

export function hostUpdateOf(context: StepContext): HostUpdate {
  const { operation, hypervisor } = context;
  const { target } = operation;
  if (target === undefined) throw new Error(`operation ${operation.id} has no target`);
  const host = requireHost(context);
  const current = toHostSpec(host);
  return {
    host,
    current,
    next: applyTarget(current, target),
    changesImage: changesImage(host, target),
    changesShape: parts.some(({ field }) => host.shape[field] !== target.shape[field]),
    restartReason: restartReason(host, target, hypervisor.capabilities),
  };
}

function applyTarget(spec: HostSpec, target: UpdateTarget): HostSpec {
  return {
    ...spec,
    planName: target.planName,
    shape: target.shape,
    publishedPorts: { first: spec.publishedPorts.first, count: target.publishedPorts },
    egress: target.egress,
    registries: target.registries,
    ...(target.imageVersion !== undefined && { imageVersion: target.imageVersion }),
  };
}

const parts = [
  { name: 'CPUs', field: 'vcpus', growth: 'vcpus' },
  { name: 'memory', field: 'memoryMib', growth: 'memory' },
  { name: 'disk', field: 'diskGib', growth: 'disk' },
] as const;

const changesImage = (host: Host, { imageVersion }: UpdateTarget) =>
  imageVersion !== undefined && imageVersion !== host.imageVersion;

function restartReason(
  host: Host,
  target: UpdateTarget,
  { liveGrowth }: Pick<Capabilities, 'liveGrowth'>,
): string | undefined {
  if (changesImage(host, target)) return 'it gets another image';
  const removed = parts.filter(({ field }) => target.shape[field] < host.shape[field]);
  if (removed.length > 0) return `${namesOf(removed)} can't be removed from a running one`;
  const unsupported = parts.filter(
    ({ field, growth }) => target.shape[field] > host.shape[field] && !liveGrowth[growth],
  );
  if (unsupported.length > 0) return `this hypervisor can't add ${namesOf(unsupported)} to a running one`;
  return undefined;
}

const namesOf = (some: readonly { readonly name: string }[]) =>
  new Intl.ListFormat('en-GB').format(some.map(({ name }) => name));

/** Whether an update is likely to boot the VM: it restarts it, or the VM is known to have ended. */
export const mayBootIn = (
  host: Host,
  target: UpdateTarget | undefined,
  capabilities: Pick<Capabilities, 'liveGrowth'>,
): boolean =>
  host.engine === undefined ||
  (target !== undefined && restartReason(host, target, capabilities) !== undefined);
