import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { openCurrentImage } from '../../../../src/hypervisors/qemu/image/current-image.ts';
import {
  fileDigest,
  readImage,
  writeImageRecord,
} from '../../../../src/hypervisors/qemu/image/guest-image.ts';
import { silentLogger } from '../../../support/logger.ts';

let state: string;
beforeEach(async () => {
  state = await mkdtemp(path.join(tmpdir(), 'berth-images-'));
});
afterEach(() => rm(state, { recursive: true }));

const folder = (digest: string) => path.join(state, 'images', digest);
/** Puts an image on disk, as if it had been built. */
async function install(letter: string) {
  const digest = letter.repeat(64);
  await mkdir(folder(digest), { recursive: true });
  const file = (name: string) => path.join(folder(digest), name);
  const [vmlinuz, initrd, rootfs] = [file('vmlinuz'), file('initrd'), file('rootfs')];
  for (const one of [vmlinuz, initrd, rootfs]) await writeFile(one, 'content');
  await writeImageRecord(folder(digest), {
    ...{ digest, recipe: 'r', suite: 'trixie', builtAt: '2026-11-01T00:00:00Z', verity: 'v' },
    files: {
      vmlinuz: await fileDigest(vmlinuz),
      initrd: await fileDigest(initrd),
      rootfs: await fileDigest(rootfs),
    },
  });
  return readImage(folder(digest));
}
const open = (installed: Awaited<ReturnType<typeof install>> | undefined) =>
  openCurrentImage(state, installed, silentLogger);

it('current image: the installed one if there has been none', async () => {
  expect((await open(undefined)).find()).toBeUndefined();
  const first = await install('a');
  expect((await open(first)).require()).toEqual(first);
});

// Fails if a start takes the newest image: the catalog would announce it before its template is made.
it('current image: a newer one only once it has replaced the former, also for later starts', async () => {
  const first = await install('a');
  await open(first);
  const second = await install('b');
  const image = await open(second);
  expect(image.require().digest).toBe(first.digest);
  image.setNext(second);
  expect(image.require().digest).toBe(first.digest);
  expect((await open(second)).require().digest).toBe(first.digest);
  await image.replace(second);
  expect([image.require(), image.next()]).toEqual([second, undefined]);
  // Also if a former version of Berth is installed again.
  expect((await open(first)).require().digest).toBe(second.digest);
});

it('current image: the installed one if the one on record is gone', async () => {
  await open(await install('a'));
  const second = await install('b');
  await rm(folder('a'.repeat(64)), { recursive: true });
  expect((await open(second)).require()).toEqual(second);
  await rm(folder('b'.repeat(64)), { recursive: true });
  expect((await open(undefined)).find()).toBeUndefined();
});
