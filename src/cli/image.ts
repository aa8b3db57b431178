import type { Settings } from '../config/settings.ts';
import {
  type ImageUser,
  type InstalledImage,
  installedImages,
  isNeeded,
  removeImage,
} from '../hypervisors/qemu/image/installed-images.ts';
import { imageOptions } from '../hypervisors/open.ts';
import { buildGuestImage } from '../hypervisors/qemu/image/build-image.ts';
import { readImagePackages } from '../hypervisors/qemu/image/image-packages.ts';
import { type SecurityUpdate, securityUpdates } from '../hypervisors/qemu/image/security-updates.ts';
import { createProgress } from '../lib/progress.ts';
import { printError, printLine } from '../lib/terminal.ts';
import { findImageUpdates, type ImageUpdates } from './image-updates.ts';
import { askMgmt } from './mgmt-client.ts';
import { type Column, printTable } from './table.ts';

/** `berth image build`: builds the guest image from Debian's current packages. */
export async function runImageBuild(settings: Settings): Promise<void> {
  const progress = createProgress();
  const stop = new AbortController();
  process.once('SIGINT', () => {
    stop.abort();
  });
  const image = await buildGuestImage(
    imageOptions(settings),
    ({ step, percent }) => {
      progress.show(`${percent} % ${step}`);
    },
    stop.signal,
  ).finally(() => {
    progress.end();
  });
  const { engine = '?', kernel = '?' } = await readImagePackages(image.directory);
  printLine(image.directory);
  printLine(`  suite   ${settings.imageSuite}`);
  printLine(`  engine  ${engine}`);
  printLine(`  kernel  ${kernel}`);
  printLine(`  size    ${inMib(image.bytes)}`);
  printLine(`  digest  ${image.digest}`);
}

const inMib = (bytes: number) => `${(bytes / 1024 ** 2).toFixed(0)} MiB`;

const columns = ({ missing }: ImageUpdates): readonly Column<InstalledImage>[] => [
  ['VERSION', ({ version }) => version],
  ['SUITE', ({ suite }) => suite],
  ['ENGINE', ({ packages }) => packages.engine ?? '?'],
  ['KERNEL', ({ packages }) => packages.kernel ?? '?'],
  ['BUILT', ({ builtAt }) => builtAt.slice(0, 19)],
  ['SIZE', ({ bytes }) => inMib(bytes)],
  ['UPDATES', (image) => String(missing.get(image)?.length ?? '?')],
  ['HOSTS', ({ hosts }) => String(hosts)],
  ['TEMPLATES', ({ templates }) => String(templates)],
  ['NEW HOSTS', ({ isCurrent, isNewest }) => (isCurrent ? 'yes' : isNewest ? 'soon' : '-')],
];

/**
 * `berth image list`: the images on this node, the hosts and templates that use them, and the security updates that they
 * lack.
 */
export async function runImageList(settings: Settings): Promise<void> {
  const images = await list(settings);
  const updates = await findImageUpdates(images, (suite, packages) =>
    securityUpdates(imageOptions(settings), suite, packages),
  );
  printTable(columns(updates), images);
  for (const [image, missing] of updates.missing) {
    if (missing.length === 0) continue;
    printLine('');
    printLine(`${image.version} lacks security updates; "berth image build" builds an image with them:`);
    printTable(updateColumns, missing);
  }
  for (const problem of updates.problems) printError(problem);
}

const updateColumns: readonly Column<SecurityUpdate>[] = [
  ['  PACKAGE', ({ name }) => `  ${name}`],
  ['VERSION', ({ version }) => version],
  ['NEWER', ({ newer }) => newer],
];

/** `berth image prune`: removes unused images. */
export async function runImagePrune(settings: Settings): Promise<void> {
  const unused = (await list(settings)).filter((image) => !isNeeded(image));
  for (const image of unused) {
    await removeImage(image);
    printLine(`Removed ${image.version}, ${inMib(image.bytes)}.`);
  }
  if (unused.length === 0) printLine('Every image is in use; "berth image list" shows by what.');
}

/** Asks the broker as well: only its database knows the image to which a failing update rolls back. */
async function list(settings: Settings): Promise<readonly InstalledImage[]> {
  const { hosts } = await askMgmt<{ hosts: ImageUser[] }>(settings, '/mgmt/hosts');
  return installedImages({ ...imageOptions(settings), stateDirectory: settings.stateDirectory }, hosts);
}
