import { mkdir, readdir } from 'node:fs/promises';
import path from 'node:path';
import { nameServerProblem } from '../config/defaults.ts';
import { siteId } from '../config/secrets.ts';
import { type Settings, SettingsError } from '../config/settings.ts';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { Logger } from '../lib/logger.ts';
import { ensureGuestImage, findInstalledImage, type ImageOptions } from './qemu/image/build-image.ts';
import { connectionTableProblem } from './qemu/node/connection-table.ts';
import { probeKvm } from './qemu/node/kvm.ts';
import { createQemuHypervisor } from './qemu/qemu.ts';
import { swapProblem } from './qemu/node/swap.ts';
import { createSimulatedHypervisor } from './simulated/simulated.ts';
import { userIds } from '../config/users.ts';
import { projectDirectory } from '../lib/project-directory.ts';

/**
 * Opens the hypervisor that the settings select, with the image that is installed, if there is one.
 * @param options.loadAhead whether to load the template now, since hosts will be created soon.
 * @param options.restoredPlans names of the plans whose hosts are restored from the template; those of others boot cold.
 */
export async function openHypervisor(
  settings: Settings,
  logger: Logger,
  options: { readonly loadAhead: boolean; readonly restoredPlans: ReadonlySet<string> },
): Promise<Hypervisor> {
  const { stateDirectory } = settings;
  await mkdir(stateDirectory, { recursive: true, mode: 0o755 });
  const hypervisor =
    settings.hypervisor === 'simulated'
      ? createSimulatedHypervisor({ stateDirectory, logger, restoredPlans: options.restoredPlans })
      : await qemu(settings, logger, options);
  await hypervisor.open();
  return hypervisor;
}

/** @throws SettingsError if the hypervisor that the settings select needs root, and this process is not root. */
export function requireRights({ hypervisor }: Settings): void {
  if (hypervisor !== 'qemu' || process.getuid?.() === 0) return;
  throw new SettingsError(
    'The qemu hypervisor needs root, to create namespaces and firewall rules for hosts and to run them as other users. To try Berth without root: BERTH_HYPERVISOR=simulated npm start',
  );
}

/**
 * Destroys all hosts of an installation that is being removed, parked ones included. Its worker must have ended; hosts
 * keep running without it.
 */
export async function destroyHosts(settings: Settings, logger: Logger): Promise<void> {
  const hypervisor = await openHypervisor(settings, logger, { loadAhead: false, restoredPlans: new Set() });
  for (const { hostId } of await hypervisor.list()) await hypervisor.destroy(hostId);
  await hypervisor.close();
}

/** Folders of the installed guest images and of the recipe, and the suite. */
export function imageOptions(settings: Settings): ImageOptions {
  return {
    imagesDirectory: path.join(settings.stateDirectory, 'images'),
    recipeDirectory: path.join(projectDirectory(), 'image'),
    suite: settings.imageSuite,
  };
}

/** What of the node's network keeps hosts from working as they should, with remedies. */
export async function networkProblems(settings: Settings): Promise<readonly string[]> {
  const hosts = await readdir(path.join(settings.stateDirectory, 'hosts')).catch(() => []);
  return [
    nameServerProblem(settings.dnsServers),
    await connectionTableProblem(settings.hostLimits, hosts.length),
  ].filter((problem) => problem !== undefined);
}

/** File that caches whether KVM is usable. */
export const kvmMemory = (settings: Settings) => path.join(settings.stateDirectory, 'kvm.json');

async function qemu(
  settings: Settings,
  logger: Logger,
  options: Parameters<typeof openHypervisor>[2],
): Promise<Hypervisor> {
  requireRights(settings);
  const images = imageOptions(settings);
  const kvm = await probeKvm(kvmMemory(settings));
  logger.info(kvm, 'The accelerator was chosen');
  for (const problem of [await swapProblem(), ...(await networkProblems(settings))]) {
    if (problem !== undefined) logger.warn({}, problem);
  }
  const site = await siteId(settings);
  const ids = userIds(settings.uidBase);
  return createQemuHypervisor({
    site,
    stateDirectory: settings.stateDirectory,
    runDirectory: `/run/berth-${site}`,
    libexecDirectory: path.join(projectDirectory(), 'libexec'),
    image: await findInstalledImage(images, logger),
    ensureImage: (report, signal) =>
      ensureGuestImage(
        images,
        ({ step, percent }) => {
          report(`building the guest image: ${step} ${percent} %`);
        },
        signal,
      ),
    accelerator: kvm.accelerator,
    hostNetwork: settings.hostNetwork,
    firstUid: ids.hosts,
    gatewayUid: ids.gateway,
    dnsServers: settings.dnsServers,
    denyNetworks: settings.denyNetworks,
    hostLimits: settings.hostLimits,
    externalHost: settings.externalHost,
    diskReserveMib: settings.diskReserveMib,
    memoryOvercommit: settings.memoryOvercommit,
    pageSharing: settings.pageSharing,
    room: settings.largestHost,
    ...options,
    logger,
  });
}
