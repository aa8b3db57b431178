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
import { createProgress } from '../lib/progress.ts';
import { printLine } from '../lib/terminal.ts';
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
  printLine(image.directory);
  printLine(`  size    ${inMib(image.bytes)}`);
  printLine(`  digest  ${image.digest}`);
}

const inMib = (bytes: number) => `${(bytes / 1024 ** 2).toFixed(0)} MiB`;

const columns: readonly Column<InstalledImage>[] = [
  ['VERSION', ({ version }) => version],
  ['BUILT', ({ builtAt }) => builtAt.slice(0, 19)],
  ['SIZE', ({ bytes }) => inMib(bytes)],
  ['HOSTS', ({ hosts }) => String(hosts)],
  ['TEMPLATES', ({ templates }) => String(templates)],
  ['NEW HOSTS', ({ isNewest }) => (isNewest ? 'yes' : '-')],
];

/** `berth image list`: the images on this node, with the hosts and templates that use them. */
export async function runImageList(settings: Settings): Promise<void> {
  printTable(columns, await list(settings));
}

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
