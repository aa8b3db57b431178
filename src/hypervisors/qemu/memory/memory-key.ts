import { readFile } from 'node:fs/promises';
import { release, version } from 'node:os';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { runTool } from '../../run-tool.ts';
import { qemuProgram, vmArguments } from '../launch/arguments.ts';
import type { Accelerator, VmBounds } from '../options.ts';

/** The part of a memory key that all VMs on the node have in common. Texts for people, compared as a whole. */
export interface NodeKey {
  readonly accelerator: Accelerator;
  /** QEMU's version, with that of its package. */
  readonly qemu: string;
  /** QEMU's type of VM with its version, such as `pc-q35-7.2`: an alias means another one after an upgrade. */
  readonly type: string;
  /** Model and microcode of the node's processor; undefined under emulation, in which guests never see it. */
  readonly processor?: string;
  /** Release and build of the node's kernel, whose KVM saves a part of the device state; undefined under emulation. */
  readonly kernel?: string;
}

/** What a VM's saved memory and device state need: only a VM with an equal key can load them. */
export interface MemoryKey extends NodeKey {
  /** QEMU's arguments that describe the VM. */
  readonly arguments: string;
}

export const memoryKeyOf = (node: NodeKey, bounds: VmBounds): MemoryKey => ({
  ...node,
  arguments: vmArguments(node.accelerator, bounds).join(' '),
});

/** What differs between a recorded key and the present one, as text for operators; undefined if nothing does. */
export function keyDifference(recorded: MemoryKey, present: MemoryKey): string | undefined {
  const names = ['accelerator', 'qemu', 'type', 'processor', 'kernel', 'arguments'] as const;
  const different = names.filter((name) => recorded[name] !== present[name]);
  if (different.length === 0) return undefined;
  return different
    .map(
      (name) => `${name}: "${recorded[name] ?? 'none'}" when it was saved, "${present[name] ?? 'none'}" now`,
    )
    .join('; ');
}

/** @throws HypervisorError if QEMU does not start or does not know the type of VM. */
export async function readNodeKey(accelerator: Accelerator): Promise<NodeKey> {
  const [versionText, types] = await Promise.all([
    runTool(qemuProgram, ['--version']),
    runTool(qemuProgram, ['-machine', 'help']),
  ]);
  const common = {
    accelerator,
    qemu: versionText.split('\n')[0] ?? '',
    type: resolveVmType(types, vmTypeOf(accelerator)),
  };
  if (accelerator === 'tcg') return common;
  return {
    ...common,
    processor: processorOf(await readFile('/proc/cpuinfo', 'utf8')),
    kernel: `${release()} ${version()}`,
  };
}

/** The type in the arguments, which may be an alias. */
function vmTypeOf(accelerator: Accelerator): string {
  const one = { vcpus: 1, memoryMib: 1 };
  const all = vmArguments(accelerator, { start: one, room: one });
  return (all[all.indexOf('-machine') + 1] ?? '').split(',')[0] ?? '';
}

/**
 * The type of VM that an alias means.
 * @param help output of `qemu-system-x86_64 -machine help`: lines such as `q35  Standard PC (…) (alias of pc-q35-7.2)`.
 * @throws HypervisorError if QEMU does not know it.
 */
export function resolveVmType(help: string, type: string): string {
  const line = help.split('\n').find((one) => one.startsWith(`${type} `));
  if (line === undefined) throw new HypervisorError(`QEMU does not know the VM type ${type}`);
  return /\(alias of ([^)\s]+)\)/.exec(line)?.[1] ?? type;
}

/** @param cpuinfo content of `/proc/cpuinfo` (proc(5)): a block of lines per processor. */
export function processorOf(cpuinfo: string): string {
  const [first = ''] = cpuinfo.split('\n\n');
  const field = (name: string) => new RegExp(`^${name}\\s*: (.*)$`, 'm').exec(first)?.[1] ?? 'unknown';
  const model = ['vendor_id', 'model name', 'cpu family', 'model', 'stepping'].map(field).join(', ');
  return `${model}, microcode ${field('microcode')}`;
}
