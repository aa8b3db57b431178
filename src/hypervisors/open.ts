import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { siteId } from '../config/secrets.ts';
import { type Settings, SettingsError } from '../config/settings.ts';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { Logger } from '../lib/logger.ts';
import { ensureGuestImage, type ImageOptions } from './qemu/image/build-image.ts';
import { probeKvm } from './qemu/node/kvm.ts';
import { createQemuHypervisor } from './qemu/qemu.ts';
import { swapProblem } from './qemu/node/swap.ts';
import { createSimulatedHypervisor } from './simulated/simulated.ts';
import { userIds } from '../config/users.ts';
import { projectDirectory } from '../lib/project-directory.ts';

/**
 * Opens the hypervisor that the settings name. The guest image is built where it is missing.
 * @param options.report is told what takes long, in words for people; the log, where it is left out.
 * @param options.loadAhead whether hosts will be made at once: templates are then loaded at the start.
 */
export async function openHypervisor(
  settings: Settings,
  logger: Logger,
  options: { report?: (line: string) => void; loadAhead: boolean },
): Promise<Hypervisor> {
  const { stateDirectory } = settings;
  const report =
    options.report ??
    ((line: string) => {
      logger.info({}, line);
    });
  await mkdir(stateDirectory, { recursive: true, mode: 0o755 });
  const hypervisor =
    settings.hypervisor === 'simulated'
      ? createSimulatedHypervisor({ stateDirectory, logger })
      : await qemu(settings, logger, report, options.loadAhead);
  await hypervisor.open();
  return hypervisor;
}

/**
 * Destroys every host of an installation that is given up and whose worker has ended: hosts outlive it, those of the
 * pool, which are nobody's, among them.
 */
export async function destroyHosts(settings: Settings, logger: Logger): Promise<void> {
  const hypervisor = await openHypervisor(settings, logger, { loadAhead: false });
  for (const { hostId } of await hypervisor.list()) await hypervisor.destroy(hostId);
  await hypervisor.close();
}

/** Where the guest image is kept, and its recipe. */
export function imageOptions(settings: Settings): ImageOptions {
  return {
    imagesDirectory: path.join(settings.stateDirectory, 'images'),
    recipeDirectory: path.join(projectDirectory(), 'image'),
  };
}

/** Where the answer on KVM is remembered. */
export const kvmMemory = (settings: Settings) => path.join(settings.stateDirectory, 'kvm.json');

async function qemu(
  settings: Settings,
  logger: Logger,
  report: (line: string) => void,
  loadAhead: boolean,
): Promise<Hypervisor> {
  if (process.getuid?.() !== 0) {
    throw new SettingsError(
      'The qemu hypervisor needs root: namespaces, firewall rules and users of their own are made for hosts. For a first look without it: BERTH_HYPERVISOR=simulated npm start',
    );
  }
  const image = await ensureGuestImage(
    imageOptions(settings),
    ({ step, percent }) => {
      report(`building the guest image: ${step} ${percent} %`);
    },
    new AbortController().signal,
  );
  const kvm = await probeKvm(kvmMemory(settings));
  logger.info(kvm, 'The accelerator was chosen');
  const swap = await swapProblem();
  if (swap !== undefined) logger.warn({}, swap);
  const site = await siteId(settings);
  const ids = userIds(settings.uidBase);
  return createQemuHypervisor({
    site,
    stateDirectory: settings.stateDirectory,
    runDirectory: `/run/berth-${site}`,
    libexecDirectory: path.join(projectDirectory(), 'libexec'),
    image,
    accelerator: kvm.accelerator,
    hostNetwork: settings.hostNetwork,
    firstUid: ids.hosts,
    gatewayUid: ids.gateway,
    dnsServers: settings.dnsServers,
    hostLimits: settings.hostLimits,
    pageSharing: settings.pageSharing,
    loadAhead,
    logger,
  });
}
