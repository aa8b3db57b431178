import { mkdir, statfs } from 'node:fs/promises';
import { availableParallelism, freemem, totalmem } from 'node:os';
import type { Settings } from '../config/settings.ts';
import type { DiskRoom } from '../core/disk-admission.ts';
import { imageOptions, kvmMemory, networkProblems } from '../hypervisors/open.ts';
import { findGuestImage } from '../hypervisors/qemu/image/build-image.ts';
import { probeKvm } from '../hypervisors/qemu/node/kvm.ts';
import { swapProblem } from '../hypervisors/qemu/node/swap.ts';
import { askMgmt } from './mgmt-client.ts';
import { errorMessage } from '../lib/error-message.ts';
import { exists } from '../lib/exists.ts';
import { printLine } from '../lib/terminal.ts';

/** The result of one check. */
type Finding = readonly [ok: boolean, message: string];

/** Of the answer to GET /mgmt/health. */
interface Health {
  readonly problems: readonly string[];
  readonly notices: readonly string[];
  readonly preparing: readonly string[];
  readonly disk?: DiskRoom;
}

const tools = [
  '/usr/bin/qemu-system-x86_64',
  '/usr/bin/qemu-img',
  '/usr/bin/bwrap',
  '/usr/sbin/nft',
  '/usr/sbin/conntrack',
  '/usr/sbin/mkfs.ext4',
  '/bin/busybox',
];

/** `berth doctor`: checks this node's requirements for hosts, and the health of the broker on it. */
export async function runDoctor(settings: Settings): Promise<void> {
  const findings: Finding[] = [
    [true, `${availableParallelism()} CPUs, ${gib(totalmem())} GiB memory, ${gib(freemem())} GiB free`],
    ...(settings.hypervisor === 'qemu' ? await checkNode(settings) : [simulated]),
    ...(await checkBroker(settings)),
  ];
  for (const [ok, message] of findings) printLine(`${ok ? 'ok  ' : 'NOT '} ${message}`);
  if (findings.some(([ok]) => !ok)) process.exitCode = 1;
}

const simulated: Finding = [true, 'the hypervisor is SIMULATED: there are no VMs'];

async function checkNode(settings: Settings): Promise<Finding[]> {
  const findings: Finding[] = [];
  const isRoot = process.getuid?.() === 0;
  findings.push([isRoot, isRoot ? 'running as root' : 'not root: VMs need root, run it as root']);
  for (const tool of tools) {
    const found = await exists(tool);
    findings.push([found, found ? tool : `${tool} is missing: npm start installs it`]);
  }
  if (findings.every(([ok]) => ok)) {
    await mkdir(settings.stateDirectory, { recursive: true });
    const { accelerator, reason } = await probeKvm(kvmMemory(settings));
    findings.push([true, `accelerator ${accelerator}: ${reason}`]);
  }
  const network = await networkProblems(settings);
  findings.push(
    ...(network.length === 0
      ? [[true, "guests' name servers and the connection tracking table"] as const]
      : network.map((problem): Finding => [false, problem])),
  );
  const disk = await freeDisk(settings);
  if (disk !== undefined) findings.push(disk);
  const swap = await swapProblem();
  findings.push([swap === undefined, swap ?? "tenants' memory is never swapped"]);
  try {
    const image = await findGuestImage(imageOptions(settings));
    findings.push(
      image === undefined
        ? [false, 'no guest image: npm start builds it']
        : [true, `guest image ${image.digest.slice(0, 12)}, complete`],
    );
  } catch (error) {
    findings.push([false, errorMessage(error)]);
  }
  return findings;
}

/** Undefined before the first start. */
async function freeDisk({ stateDirectory, diskReserveMib }: Settings): Promise<Finding | undefined> {
  if (!(await exists(stateDirectory))) return undefined;
  const { bavail, bsize } = await statfs(stateDirectory);
  const free = bavail * bsize;
  const reserve = diskReserveMib * 1024 ** 2;
  return [
    free >= reserve,
    `disk of ${stateDirectory}: ${gib(free)} GiB free, of which ${gib(reserve)} GiB are never given to hosts`,
  ];
}

function promisedDisk({ promisedGib, limitGib }: DiskRoom): Finding {
  const fits = promisedGib <= limitGib;
  const refused = fits ? '' : ': creates are refused';
  return [fits, `disk: ${promisedGib} GiB are promised to hosts, and ${limitGib} GiB may be${refused}`];
}

async function checkBroker(settings: Settings): Promise<Finding[]> {
  try {
    const { problems, notices, preparing, disk } = await askMgmt<Health>(settings, '/mgmt/health');
    const found = disk === undefined ? [] : [promisedDisk(disk)];
    const prepared = preparing.map((text) => `the worker prepares: ${text}`);
    const noted = [...notices, ...prepared].map((notice): Finding => [true, notice]);
    if (problems.length === 0) return [...found, [true, 'the broker is healthy'], ...noted];
    return [...found, ...problems.map((problem): Finding => [false, problem]), ...noted];
  } catch (error) {
    return [[false, errorMessage(error)]];
  }
}

function gib(bytes: number): string {
  return (bytes / 1024 ** 3).toFixed(1);
}
