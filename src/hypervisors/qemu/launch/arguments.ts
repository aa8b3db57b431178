import type { HostShape } from '../../../core/hypervisor/host-spec.ts';
import { agentPortName, guestLink } from '../../../guest/link.ts';
import type { GuestImage } from '../image/guest-image.ts';
import type { Accelerator } from '../options.ts';

/** Where a machine's memory comes from. */
export type Memory =
  /** Ordinary memory: a cold boot. */
  | { readonly kind: 'own' }
  /** A file, as descriptor 3, that holds it afterwards: a template in the making. */
  | { readonly kind: 'file'; readonly path: string }
  /** A template's, or a copy of it, as descriptor 3; what the guest writes is its own in any case. */
  | { readonly kind: 'template' };

/** The data disk, as the chain of images that it is made of. */
export interface DiskChain {
  /** The host's own qcow2: the only one that is written to. */
  readonly own: string;
  /** The template's qcow2, where the host was born from one. */
  readonly template: string | undefined;
  /** An empty ext4 of the plan's size. */
  readonly base: string;
}

export const qemuProgram = '/usr/bin/qemu-system-x86_64';

/** Descriptors that libexec/berth-launch hands over. */
const descriptors = { memory: 3, deviceState: 4, tap: 5, qmp: 6, agent: 7, firstFile: 8 };
const memoryPath = `/proc/self/fd/${descriptors.memory}`;
/** Where device state is read from: `exec:` is forbidden by the sandbox. */
export const deviceStateUri = `fd:${descriptors.deviceState}`;

/**
 * What is the same in a template and in every host restored from it. A template is made anew when any of it
 * changes.
 */
export function vmArguments(accelerator: Accelerator, shape: HostShape): readonly string[] {
  return [
    '-machine',
    // microvm often hangs under TCG when it calibrates its timer; q35 without what no guest uses boots every time.
    'q35,vmport=off,smbus=off,sata=off,usb=off,memory-backend=mem',
    ...(accelerator === 'kvm'
      ? ['-accel', 'kvm', '-cpu', 'host']
      : ['-accel', 'tcg,thread=multi,tb-size=64', '-cpu', 'max']),
    '-smp',
    String(shape.vcpus),
    '-m',
    `${shape.memoryMib}M`,
    '-nodefaults',
    '-no-user-config',
    '-no-reboot',
    '-display',
    'none',
    // No console at all: a flood of messages fills nobody's disk.
    '-serial',
    'null',
    '-device',
    'virtio-blk-pci,id=root,drive=root',
    '-device',
    'virtio-blk-pci,id=data,drive=data,discard=on',
    '-device',
    `virtio-net-pci,id=net,netdev=net,mac=${guestLink.guestMac},romfile=`,
    '-netdev',
    `tap,id=net,fd=${descriptors.tap},vhost=off`,
    '-device',
    'virtio-serial-pci,id=serial,max_ports=2',
    '-device',
    `virtserialport,id=agent,chardev=agent,name=${agentPortName}`,
    '-object',
    'rng-random,id=random,filename=/dev/urandom',
    '-device',
    'virtio-rng-pci,id=rng,rng=random,max-bytes=1024,period=1000',
    '-device',
    'vmgenid,guid=auto',
  ];
}

/** A file that a machine is handed open: it has no name in its jail. */
export interface HandedFile {
  readonly path: string;
  readonly access: 'read' | 'write';
}

export interface QemuCommand {
  readonly command: readonly string[];
  /** In the order of their descriptors, from 8. */
  readonly files: readonly HandedFile[];
}

/** The whole command line of a machine. It begins stopped where it is to be loaded and continued. */
export function qemuCommand(machine: {
  readonly name: string;
  readonly accelerator: Accelerator;
  readonly shape: HostShape;
  readonly image: GuestImage;
  readonly memory: Memory;
  readonly incoming: boolean;
  readonly disk: DiskChain;
}): QemuCommand {
  const { name, accelerator, shape, image, memory, incoming, disk } = machine;
  const files: HandedFile[] = [];
  const hand = (path: string, access: HandedFile['access'] = 'read'): number =>
    descriptors.firstFile + files.push({ path, access }) - 1;
  // By name QEMU would open them anew, as its own user: /proc needs no right on the folders above.
  const byName = (path: string) => `/proc/self/fd/${hand(path)}`;
  const command = [
    qemuProgram,
    '-name',
    name,
    ...vmArguments(accelerator, shape),
    '-object',
    memoryObject(memory, shape),
    ...blockDevices(image, disk, hand),
    '-chardev',
    `socket,id=monitor,fd=${descriptors.qmp},server=on,wait=off`,
    '-mon',
    'chardev=monitor,mode=control',
    '-chardev',
    `socket,id=agent,fd=${descriptors.agent},server=on,wait=off`,
    '-sandbox',
    'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny',
    ...(incoming
      ? ['-S', '-incoming', 'defer']
      : ['-kernel', byName(image.kernel), '-initrd', byName(image.initrd), '-append', image.commandLine]),
  ];
  return { command, files };
}

/** In no core dump (MADV_DONTDUMP), and never merged with equal pages of others (no MADV_MERGEABLE). */
function memoryObject(memory: Memory, shape: HostShape): string {
  const size = `id=mem,size=${shape.memoryMib}M,dump=off,merge=off`;
  switch (memory.kind) {
    case 'own':
      return `memory-backend-ram,${size}`;
    case 'file':
      return `memory-backend-file,${size},share=on,mem-path=${memoryPath}`;
    case 'template':
      return `memory-backend-file,${size},share=off,mem-path=${memoryPath}`;
  }
}

function blockDevices(
  image: GuestImage,
  disk: DiskChain,
  hand: (path: string, access?: HandedFile['access']) => number,
): string[] {
  const readOnly = 'read-only=on,auto-read-only=off';
  const file = (node: string, descriptor: number, mode: string) => [
    '-add-fd',
    `fd=${descriptor},set=${descriptor}`,
    '-blockdev',
    `driver=file,node-name=${node},filename=/dev/fdset/${descriptor},${mode}`,
  ];
  const chain = [
    ...file('root', hand(image.rootfs), readOnly),
    ...file('base-file', hand(disk.base), readOnly),
    '-blockdev',
    `driver=raw,node-name=base,file=base-file,${readOnly}`,
  ];
  let backing = 'base';
  if (disk.template !== undefined) {
    chain.push(
      ...file('template-file', hand(disk.template), readOnly),
      '-blockdev',
      `driver=qcow2,node-name=template,file=template-file,backing=base,${readOnly}`,
    );
    backing = 'template';
  }
  return [
    ...chain,
    ...file('data-file', hand(disk.own, 'write'), 'discard=unmap'),
    '-blockdev',
    `driver=qcow2,node-name=data,file=data-file,backing=${backing},discard=unmap,detect-zeroes=unmap`,
  ];
}
