import { chmod, chown, open, rename, rm, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { enginePort } from '../../../core/hypervisor/network.ts';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import type { TemplateSpec } from '../../../core/hypervisor/templates.ts';
import { createGuestAgent } from '../../../guest/agent.ts';
import type { Cgroups } from '../launch/cgroup.ts';
import { createOverlay, ensureBaseDisk } from '../disk/disks.ts';
import { engineAnswers } from '../engine/engine.ts';
import { fileDigest } from '../image/guest-image.ts';
import type { Vms } from '../launch/vms.ts';
import type { HostNetworking } from '../network/network.ts';
import type { QemuOptions } from '../options.ts';
import { layoutOf, removeRunFiles, type HostLayout } from '../layout.ts';
import { templateSlot } from '../names.ts';
import { type TemplateFile, type TemplateRecord, templateFiles, templateWorkshop } from './templates.ts';
import { warmUp } from './warm-up.ts';

/** Under emulation, beside other work, a cold boot has been seen to take over two minutes. */
const bootTimeoutMs = 15 * 60 * 1000;
const pollMs = 250;
const noPorts = { first: 0, count: 0 };

interface Parts {
  readonly options: QemuOptions;
  readonly cgroups: Cgroups;
  readonly network: HostNetworking;
  readonly machines: Vms;
}

/** The machine that becomes a template. It belongs to nobody, and has the one slot that no host has. */
export const templatePlace = (options: QemuOptions): HostLayout =>
  layoutOf(options, 'template', templateSlot);

/** Ends a template in the making and removes it: also what a killed worker has left. */
export async function removeTemplateVm({ options, cgroups, network }: Parts): Promise<void> {
  const place = templatePlace(options);
  await cgroups.kill(place.id);
  await network.destroy(place, noPorts);
  await cgroups.remove(place.id);
  await removeRunFiles(place);
}

/**
 * Makes a template: boots a machine cold, has its engine do one of everything, and freezes it with its memory,
 * its device state and its disk, which from then on belong together and are only read.
 */
export async function makeTemplate(
  parts: Parts,
  plan: TemplateSpec,
  target: { key: string; directory: string },
  report: (step: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const { options, network, machines, cgroups } = parts;
  signal.throwIfAborted();
  const { shape } = plan;
  const place = templatePlace(options);
  await removeTemplateVm(parts);
  const workshop = await templateWorkshop(options.stateDirectory);
  const file = (name: TemplateFile) => path.join(workshop, name);
  try {
    report('booting the guest');
    const base = await ensureBaseDisk(options.stateDirectory, shape.diskGib);
    await createOverlay(file('disk.qcow2'), { file: base, format: 'raw' }, shape.diskGib, place.uid);
    await (await open(file('memory'), 'w', 0o600)).close();
    await truncate(file('memory'), shape.memoryMib * 1024 ** 2);
    await chown(file('memory'), place.uid, place.uid);
    await network.make(place);
    await machines.launch(place, {
      shape,
      image: options.image,
      memory: { kind: 'file', path: file('memory') },
      incoming: false,
      disk: { own: file('disk.qcow2'), template: undefined, base },
    });

    const agent = createGuestAgent(place.agentSocket);
    const engine = { host: place.hostAddress, port: enginePort };
    const until = async (what: string, done: () => Promise<boolean>) => {
      const deadline = performance.now() + bootTimeoutMs;
      while (!(await done())) {
        signal.throwIfAborted();
        await machines.requireAlive(place);
        if (performance.now() > deadline) throw new HypervisorError(`${what} did not come up in time`);
        await delay(pollMs);
      }
    };
    await until("the guest's agent", async () => (await agent.status(1_000)) !== undefined);
    await network.connect(place, noPorts, { kind: 'none' }, noPorts);
    report('starting the Docker engine');
    await until('the Docker engine', () => engineAnswers(engine, 5_000));
    await warmUp(engine, (step) => {
      signal.throwIfAborted();
      report(`warming up the engine: ${step}`);
    });
    signal.throwIfAborted();

    report('freezing');
    await network.disconnect(place, noPorts);
    if (!(await agent.freeze(120_000))) throw new HypervisorError("the guest's agent went silent");
    await machines.freeze(place, file('device-state'), shape);
    while ((await cgroups.processes(place.id)).length > 0) await delay(pollMs);

    report('computing digests');
    await publish(workshop, plan, target, options);
  } finally {
    await removeTemplateVm(parts);
    await rm(workshop, { recursive: true, force: true });
  }
}

async function publish(
  workshop: string,
  plan: TemplateSpec,
  target: { key: string; directory: string },
  options: QemuOptions,
): Promise<void> {
  const files: Partial<Record<TemplateFile, string>> = {};
  for (const name of templateFiles) {
    const file = path.join(workshop, name);
    await chown(file, 0, 0);
    // Hosts' users read the disk by its path; memory and device state are handed over open.
    await chmod(file, name === 'disk.qcow2' ? 0o444 : 0o400);
    files[name] = await fileDigest(file);
  }
  const record: TemplateRecord = {
    key: target.key,
    planName: plan.planName,
    image: options.image.digest,
    madeAt: new Date().toISOString(),
    files: files as Record<TemplateFile, string>,
  };
  await writeFile(path.join(workshop, 'template.json'), `${JSON.stringify(record, undefined, 2)}\n`);
  await rm(target.directory, { recursive: true, force: true });
  await rename(workshop, target.directory);
}
