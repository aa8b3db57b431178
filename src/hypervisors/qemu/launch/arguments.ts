import { agentPortName, guestLink } from '../../../guest/link.ts';
import type { GuestImage } from '../image/guest-image.ts';
import type { Accelerator, VmBounds, VmSize } from '../options.ts';

/** The source of a VM's memory. */
export type Memory =
  /** Ordinary memory: a cold boot. */
  | { readonly kind: 'own' }
  /** A file, passed as descriptor 3, that contains the memory afterwards: a template that is being made. */
  | { readonly kind: 'file'; readonly path: string }
  /** A template's memory or a copy of it, passed as descriptor 3 and mapped copy-on-write. */
  | { readonly kind: 'template' };

/** The data disk: a chain of images. */
export interface DiskChain {
  /** The host's qcow2, the only one that is written to. */
  readonly own: string;
  /** The template's qcow2 if the host was restored from one. */
  readonly template: string | undefined;
  /** An empty ext4 of the plan's size. */
  readonly base: string;
}

export const qemuProgram = '/usr/bin/qemu-system-x86_64';

/** Descriptors that libexec/berth-launch passes to QEMU. */
const descriptors = { memory: 3, deviceState: 4, tap: 5, qmp: 6, agent: 7, firstFile: 8 };
const memoryPath = `/proc/self/fd/${descriptors.memory}`;
/** Where device state is read from; QEMU's sandbox forbids `exec:`. */
export const deviceStateUri = `fd:${descriptors.deviceState}`;

/**
 * KVM's code for guests that run VMs themselves is large and has had flaws with which a guest reached the node. Emulation
 * has no such code in the kernel, and guests of QEMU 7.2's emulation fail without SVM.
 */
const noNestedVirtualization = 'vmx=off,svm=off';

/** Name of the device of the guest's data disk. */
export const dataDevice = 'data';
/** Name of the block node of the data disk. */
export const dataNode = 'data';

/** Name of the device by which memory is added (virtio-mem), and of that memory. */
export const addedMemoryDevice = 'added-memory';
export const addedMemory = 'added';
/** Memory is added in blocks of this size. */
const blockMib = 2;

/** The memory in MiB that a VM of this size gets beyond what it was started with. */
export const addedMemoryMib = (start: VmSize, { memoryMib }: VmSize): number =>
  Math.ceil(Math.max(0, memoryMib - start.memoryMib) / blockMib) * blockMib;

/**
 * The arguments that a VM has in common with every other that can load its memory. If any of them changes, templates are
 * made again.
 */
export function vmArguments(accelerator: Accelerator, { start, room }: VmBounds): readonly string[] {
  const roomMib = addedMemoryMib(start, room);
  return [
    '-machine',
    // microvm often hangs under TCG while it calibrates its timer; q35 without unused devices boots reliably.
    'q35,vmport=off,smbus=off,sata=off,usb=off,memory-backend=mem',
    // tb-size: MiB of translated code; a `docker run` needs up to 256 (ADR 29).
    ...(accelerator === 'kvm'
      ? ['-accel', 'kvm', '-cpu', `host,${noNestedVirtualization}`]
      : ['-accel', 'tcg,thread=multi,tb-size=256', '-cpu', 'max']),
    '-smp',
    // As many as the host can ever have. The guest turns on those of its plan, and its control group limits the CPU time to them.
    String(Math.max(start.vcpus, room.vcpus)),
    '-m',
    // Without room as former versions of Berth said it: hosts that they have suspended can be woken.
    roomMib === 0 ? `${start.memoryMib}M` : `${start.memoryMib}M,maxmem=${start.memoryMib + roomMib}M`,
    '-nodefaults',
    '-no-user-config',
    '-no-reboot',
    '-display',
    'none',
    // No console, so that a flood of kernel messages cannot fill a disk.
    '-serial',
    'null',
    '-device',
    'virtio-blk-pci,id=root,drive=root',
    '-device',
    `virtio-blk-pci,id=${dataDevice},drive=data,discard=on`,
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
    ...(roomMib === 0 ? [] : addedMemoryArguments(roomMib)),
  ];
}

/** Nothing is reserved before it is added. */
const addedMemoryArguments = (roomMib: number) => [
  '-object',
  `memory-backend-ram,id=${addedMemory},size=${roomMib}M,reserve=off,dump=off,merge=off`,
  '-device',
  `virtio-mem-pci,id=${addedMemoryDevice},memdev=${addedMemory},requested-size=0`,
];

/** A file that QEMU gets as an open descriptor, because it has no name in the jail. */
export interface PassedFile {
  readonly path: string;
  readonly access: 'read' | 'write';
}

export interface QemuCommand {
  readonly command: readonly string[];
  /** In the order of their descriptors, starting at 8. */
  readonly files: readonly PassedFile[];
}

/** The whole command line of a VM. With `incoming` the VM starts paused, to be loaded and resumed. */
export function qemuCommand(vm: {
  readonly name: string;
  readonly accelerator: Accelerator;
  readonly bounds: VmBounds;
  readonly image: GuestImage;
  readonly memory: Memory;
  readonly incoming: boolean;
  readonly disk: DiskChain;
}): QemuCommand {
  const { name, accelerator, bounds, image, memory, incoming, disk } = vm;
  const files: PassedFile[] = [];
  const pass = (path: string, access: PassedFile['access'] = 'read'): number =>
    descriptors.firstFile + files.push({ path, access }) - 1;
  // By path QEMU would open them as its own user; /proc/self/fd needs no permission on the parent folders.
  const byName = (path: string) => `/proc/self/fd/${pass(path)}`;
  const command = [
    qemuProgram,
    '-name',
    name,
    ...vmArguments(accelerator, bounds),
    // QEMU marks memory without a file as mergeable whatever its backend says (ram_block_add in QEMU 7.2). Not
    // part of vmArguments: it does not matter to saved memory.
    '-machine',
    'mem-merge=off',
    '-object',
    memoryObject(memory, bounds.start),
    ...blockDevices(image, disk, pass),
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
      : [
          '-kernel',
          byName(image.kernel),
          '-initrd',
          byName(image.initrd),
          '-append',
          [image.commandLine, `maxcpus=${bounds.start.vcpus}`, ...kernelParameters[accelerator]].join(' '),
        ]),
  ];
  return { command, files };
}

/**
 * Kernel parameters by accelerator. `lpj`: the kernel's delay loops per tick, here of a CPU of 5 GHz with Debian's 250 ticks a second,
 * so that no delay on a slower one is too short. Without it an emulated guest measures it for each CPU that it turns on: 0.25 s.
 */
const kernelParameters: Readonly<Record<Accelerator, readonly string[]>> = { kvm: [], tcg: ['lpj=20000000'] };

/** Excluded from core dumps (MADV_DONTDUMP) and from page merging with other VMs (no MADV_MERGEABLE). */
function memoryObject(memory: Memory, { memoryMib }: VmSize): string {
  const size = `id=mem,size=${memoryMib}M,dump=off,merge=off`;
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
  pass: (path: string, access?: PassedFile['access']) => number,
): string[] {
  const readOnly = 'read-only=on,auto-read-only=off';
  const file = (node: string, descriptor: number, mode: string) => [
    '-add-fd',
    `fd=${descriptor},set=${descriptor}`,
    '-blockdev',
    `driver=file,node-name=${node},filename=/dev/fdset/${descriptor},${mode}`,
  ];
  const chain = [
    ...file('root', pass(image.rootfs), readOnly),
    ...file('base-file', pass(disk.base), readOnly),
    '-blockdev',
    `driver=raw,node-name=base,file=base-file,${readOnly}`,
  ];
  let backing = 'base';
  if (disk.template !== undefined) {
    chain.push(
      ...file('template-file', pass(disk.template), readOnly),
      '-blockdev',
      `driver=qcow2,node-name=template,file=template-file,backing=base,${readOnly}`,
    );
    backing = 'template';
  }
  return [
    ...chain,
    ...file('data-file', pass(disk.own, 'write'), 'discard=unmap'),
    '-blockdev',
    `driver=qcow2,node-name=${dataNode},file=data-file,backing=${backing},discard=unmap,detect-zeroes=unmap`,
  ];
}
