import { chmod, chown, open, rm, truncate } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { enginePort } from '../../../core/hypervisor/network.ts';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { publishFolder, writeFileAtomically } from '../../../lib/write-file-atomically.ts';
import { createGuestAgent } from '../../../guest/agent.ts';
import type { Cgroups } from '../launch/cgroups.ts';
import { createOverlay, ensureBaseDisk } from '../disk/disks.ts';
import { engineAnswers } from '../engine/engine.ts';
import { fileDigest, type GuestImage } from '../image/guest-image.ts';
import type { Vms } from '../launch/vms.ts';
import type { HostNetworking } from '../network/network.ts';
import type { QemuOptions } from '../options.ts';
import { type HostLayout, layoutOf, removeRunFiles } from '../layout.ts';
import { templateSlot } from '../names.ts';
import { templateFiles, type TemplateFile, type TemplateRecord } from './template-record.ts';
import { templateShape, templateStart } from './template-shape.ts';
import { templateBuildDirectory } from './template-store.ts';
import { warmUpEngine } from './warm-up-engine.ts';

/** A cold boot under emulation on a busy node was seen to take over two minutes. */
const bootTimeoutMs = 15 * 60 * 1000;
const pollMs = 250;
const noPorts = { first: 0, count: 0 };

interface Deps {
  readonly options: QemuOptions;
  readonly cgroups: Cgroups;
  readonly network: HostNetworking;
  readonly vms: Vms;
}

/** What a template is made from, and in which folder it is to be. */
interface TemplateTarget {
  readonly key: string;
  readonly directory: string;
  readonly image: GuestImage;
}

/** The VM that becomes a template. It belongs to no host and uses the one slot that no host has. */
export const templateLayout = (options: QemuOptions): HostLayout =>
  layoutOf(options, 'template', templateSlot);

/** Kills and removes the VM of an unfinished template, including one that a killed worker has left. */
export async function removeTemplateVm({ options, cgroups, network }: Deps): Promise<void> {
  const layout = templateLayout(options);
  await cgroups.kill(layout.id);
  await network.destroy(layout, noPorts);
  await cgroups.remove(layout.id);
  await removeRunFiles(layout);
}

/**
 * Makes a template: boots a VM cold, lets its engine do one of everything, and freezes memory, device state and disk.
 * From then on the three belong together and are only read.
 */
export async function makeTemplate(
  deps: Deps,
  target: TemplateTarget,
  report: (step: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const { options, network, vms, cgroups } = deps;
  signal.throwIfAborted();
  const shape = templateShape;
  const bounds = { start: templateStart, room: options.room };
  const layout = templateLayout(options);
  await removeTemplateVm(deps);
  const buildDirectory = await templateBuildDirectory(options.stateDirectory);
  const file = (name: TemplateFile) => path.join(buildDirectory, name);
  try {
    report('booting the guest');
    const base = await ensureBaseDisk(options.stateDirectory, shape.diskGib);
    await createOverlay(
      file('disk.qcow2'),
      { file: base, format: 'raw' },
      shape.diskGib,
      layout.uid,
      options.diskReserveMib,
    );
    await (await open(file('memory'), 'w', 0o600)).close();
    await truncate(file('memory'), templateStart.memoryMib * 1024 ** 2);
    await chown(file('memory'), layout.uid, layout.uid);
    await network.make(layout);
    await vms.launch(layout, {
      shape,
      bounds,
      image: target.image,
      memory: { kind: 'file', path: file('memory') },
      incoming: false,
      disk: { own: file('disk.qcow2'), template: undefined, base },
    });

    const agent = createGuestAgent(layout.agentSocket);
    const engine = { host: layout.hostAddress, port: enginePort };
    const until = async (what: string, done: () => Promise<boolean>) => {
      const deadline = performance.now() + bootTimeoutMs;
      while (!(await done())) {
        signal.throwIfAborted();
        await vms.requireAlive(layout);
        if (performance.now() > deadline)
          throw new HypervisorError(`${what} did not answer within ${bootTimeoutMs / 60_000} minutes`);
        await delay(pollMs);
      }
    };
    await until("the guest's agent", async () => (await agent.status(1_000)) !== undefined);
    await network.connect(layout, noPorts, { kind: 'none' }, noPorts);
    await until("the guest's agent", () => agent.publish(noPorts, 1_000));
    report('starting the Docker engine');
    await until('the Docker engine', () => engineAnswers(engine, 5_000));
    await warmUpEngine(engine, (step) => {
      signal.throwIfAborted();
      report(`warming up the engine: ${step}`);
    });
    signal.throwIfAborted();

    report('freezing');
    await network.disconnect(layout, noPorts);
    const kernelSecrets = await agent.freeze(120_000);
    if (kernelSecrets === undefined) throw new HypervisorError("the guest's agent stopped answering");
    // Last, because every restored host has its own copy of what was written to added memory.
    await vms.grow(layout, bounds.start, shape);
    await until('the added memory', async () => (await vms.sizeOf(layout)).memoryMib >= shape.memoryMib);
    await vms.freeze(layout, file('device-state'), { bounds, shape });
    while ((await cgroups.processes(layout.id)).length > 0) await delay(pollMs);

    report('computing digests');
    await publish(buildDirectory, target, kernelSecrets);
  } finally {
    await removeTemplateVm(deps);
    await rm(buildDirectory, { recursive: true, force: true });
  }
}

async function publish(
  buildDirectory: string,
  target: TemplateTarget,
  kernelSecrets: readonly number[],
): Promise<void> {
  const files: Partial<Record<TemplateFile, string>> = {};
  for (const name of templateFiles) {
    const file = path.join(buildDirectory, name);
    await chown(file, 0, 0);
    // Hosts' users read the disk by its path; memory and device state are passed as open descriptors.
    await chmod(file, name === 'disk.qcow2' ? 0o444 : 0o400);
    files[name] = await fileDigest(file);
  }
  const record: TemplateRecord = {
    key: target.key,
    image: target.image.digest,
    madeAt: new Date().toISOString(),
    kernelSecrets,
    files: files as Record<TemplateFile, string>,
  };
  const text = `${JSON.stringify(record, undefined, 2)}\n`;
  await writeFileAtomically(path.join(buildDirectory, 'template.json'), text, { mode: 0o644 });
  await rm(target.directory, { recursive: true, force: true });
  await publishFolder(buildDirectory, target.directory);
}
