/* eslint-disable max-lines -- all tests share one stand-in recipe */
import { appendFile, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { HypervisorError } from '../../../../src/core/hypervisor/hypervisor-error.ts';
import {
  type BuildProgress,
  buildGuestImage,
  ensureGuestImage,
  findGuestImage,
  findInstalledImage,
  type ImageOptions,
} from '../../../../src/hypervisors/qemu/image/build-image.ts';
import { imageVersion } from '../../../../src/hypervisors/qemu/image/image-version.ts';
import {
  type ImageUser,
  installedImages,
  isNeeded,
  removeImage,
} from '../../../../src/hypervisors/qemu/image/installed-images.ts';
import { eventually } from '../../../support/eventually.ts';
import { silentLogger } from '../../../support/logger.ts';

/**
 * A minimal recipe with the interface of the real one. It records the suite of each build in `calls`, takes the packages from
 * `packages`, and runs `during` half-way through a build.
 */
const fakeRecipe = `#!/bin/bash
set -euo pipefail
recipe=$(cd "$(dirname "$0")" && pwd)
state=$recipe.state
suite=$2
work=$3
case $1 in
  packages) cat "$state/packages" ;;
  image)
    echo "$suite" >>"$state/calls"
    mkdir "$work/out"
    echo "progress 0 Beginning"
    echo "what a tool prints"
    . "$state/during"
    echo kernel >"$work/out/vmlinuz"
    echo initrd >"$work/out/initrd"
    cat "$state/packages" >"$work/out/rootfs"
    cp "$state/packages" "$work/out/packages"
    echo abcdef:012345:7 >"$work/out/verity"
    echo "progress 100 Done"
    ;;
esac
`;

let folder: string;
let options: ImageOptions;
let state: string;

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'berth-image-'));
  options = {
    imagesDirectory: path.join(folder, 'images'),
    recipeDirectory: path.join(folder, 'recipe'),
    suite: 'trixie',
  };
  state = `${options.recipeDirectory}.state`;
  await mkdir(options.recipeDirectory);
  await mkdir(state);
  await writeFile(path.join(options.recipeDirectory, 'build'), fakeRecipe);
  await writeFile(path.join(options.recipeDirectory, 'units.txt'), 'docker.service\n');
  await writeFile(path.join(state, 'packages'), 'docker.io 26.1\nsystemd 257\n');
  await writeFile(path.join(state, 'during'), '');
  await writeFile(path.join(state, 'calls'), '');
});

afterEach(async () => {
  await rm(folder, { recursive: true });
});

const never = new AbortController().signal;
const silently = () => undefined;
const build = (signal: AbortSignal = never) => buildGuestImage(options, silently, signal);
const ensure = () => ensureGuestImage(options, silently, never);
const during = (script: string) => writeFile(path.join(state, 'during'), script);
const calls = async () => (await readFile(path.join(state, 'calls'), 'utf8')).split('\n').length - 1;
const left = () => readdir(options.imagesDirectory);

describe('guest image build', () => {
  it('image build: reports progress, and returns files, digests and a command line with the root hash', async () => {
    const told: BuildProgress[] = [];
    const image = await ensureGuestImage(options, (progress) => told.push(progress), never);
    expect(told).toEqual([
      { step: 'Looking up the newest Debian packages', percent: 0 },
      { step: 'Beginning', percent: 0 },
      { step: 'Done', percent: 100 },
    ]);
    expect(image.directory).toBe(path.join(options.imagesDirectory, image.digest));
    expect(await readFile(image.kernel, 'utf8')).toBe('kernel\n');
    expect(await readFile(image.initrd, 'utf8')).toBe('initrd\n');
    expect(await readFile(image.rootfs, 'utf8')).toBe('docker.io 26.1\nsystemd 257\n');
    expect(image.bytes).toBe(7 + 7 + 27);
    expect(image.commandLine.split(' ')).toContain('berth.verity=abcdef:012345:7');
    expect(image.commandLine.split(' ')).toContain('panic=1');
    expect(await left()).toEqual([image.digest]);
  });

  it('ensure image: uses an installed image of this recipe even if Debian has newer packages', async () => {
    const first = await ensure();
    await writeFile(path.join(state, 'packages'), 'docker.io 26.2\n');
    expect(await ensure()).toEqual(first);
    expect(await calls()).toBe(1);
  });

  it('image build: reuses the installed image if Debian has nothing newer', async () => {
    const first = await build();
    expect(await build()).toEqual(first);
    expect(await calls()).toBe(1);
  });

  it('image build: makes a new image if Debian has a newer package, and the newest is used from then on', async () => {
    const first = await build();
    await writeFile(path.join(state, 'packages'), 'docker.io 26.1\nsystemd 258\n');
    const second = await build();
    expect(second.digest).not.toBe(first.digest);
    expect(await readFile(second.rootfs, 'utf8')).toContain('systemd 258');
    expect(await findGuestImage(options)).toEqual(second);
    expect((await left()).sort()).toEqual([first.digest, second.digest].sort());
  });

  it.each([
    ['a file is changed', (recipe: string) => appendFile(path.join(recipe, 'build'), '# more\n')],
    ['a file is added', (recipe: string) => writeFile(path.join(recipe, 'more'), '')],
    [
      'a file is renamed',
      (recipe: string) => rename(path.join(recipe, 'units.txt'), path.join(recipe, 'units')),
    ],
  ])('ensure image: builds a new image if the recipe has changed: %s', async (_, change) => {
    const first = await ensure();
    await change(options.recipeDirectory);
    expect(await findGuestImage(options)).toBeUndefined();
    expect((await ensure()).digest).not.toBe(first.digest);
    expect(await calls()).toBe(2);
  });

  // Fails without the suite in the recipe's digest.
  it('ensure image: builds a new image if the suite has changed, and keeps that of the other suite', async () => {
    const first = await ensure();
    options = { ...options, suite: 'bookworm' };
    expect((await findInstalledImage(options, silentLogger))?.digest).toBe(first.digest);
    expect((await ensure()).digest).not.toBe(first.digest);
    options = { ...options, suite: 'trixie' };
    expect(await ensure()).toEqual(first);
    expect(await readFile(path.join(state, 'calls'), 'utf8')).toBe('trixie\nbookworm\n');
  });

  it('find image: undefined if none was ever built', async () => {
    expect(await findGuestImage(options)).toBeUndefined();
  });
});

describe('damaged image', () => {
  it.each(['vmlinuz', 'initrd', 'rootfs'])(
    'damaged image: is refused with file and remedy if %s has changed',
    async (name) => {
      const image = await ensure();
      const file = path.join(image.directory, name);
      const content = await readFile(file);
      content[0] = (content[0] ?? 0) ^ 1;
      await writeFile(file, content);
      await expect(ensure()).rejects.toThrow(HypervisorError);
      await expect(ensure()).rejects.toThrow(`The guest image is damaged: ${file} has the digest`);
      await expect(ensure()).rejects.toThrow(`Remove ${image.directory}: `);
    },
  );

  it('damaged image: is refused if a file is missing', async () => {
    const image = await ensure();
    await rm(image.rootfs);
    await expect(findGuestImage(options)).rejects.toThrow(`The guest image lacks ${image.rootfs}. Remove`);
  });

  it('damaged image: is refused if its record is damaged', async () => {
    const image = await ensure();
    const record = path.join(image.directory, 'image.json');
    await writeFile(record, '{"files": ');
    await expect(findGuestImage(options)).rejects.toThrow(
      `The guest image has no readable ${record}. Remove`,
    );
  });

  it('damaged image: is ignored if a newer image is used', async () => {
    const old = await ensure();
    await writeFile(old.rootfs, 'altered');
    await appendFile(path.join(options.recipeDirectory, 'build'), '# more\n');
    expect((await ensure()).digest).not.toBe(old.digest);
  });
});

// Fails if a former image is passed over: creates then wait for the build.
it('installed image: is that of the recipe, else the newest former one, and never a damaged one', async () => {
  const installed = async () => (await findInstalledImage(options, silentLogger))?.digest;
  expect(await installed()).toBeUndefined();
  const first = await ensure();
  await appendFile(path.join(options.recipeDirectory, 'build'), '# more\n');
  expect(await installed()).toBe(first.digest);
  const second = await ensure();
  expect(await installed()).toBe(second.digest);
  await writeFile(second.rootfs, 'altered');
  expect(await installed()).toBe(first.digest);
});

describe('failed image build', () => {
  it('failed image build: the error contains the output, and nothing is left', async () => {
    await during('echo "E: Unable to locate package docker.io" >&2; exit 100');
    await expect(build()).rejects.toThrow(/Unable to locate package docker\.io/);
    expect(await left()).toEqual([]);
    await during('');
    expect(await left()).toEqual([]);
    await expect(build()).resolves.toBeDefined();
  });

  it('failed image build: names the full disk and the space that is needed', async () => {
    await during('mount -t tmpfs -o size=64k tmpfs "$work/out" && head -c 1M /dev/zero >"$work/out/rootfs"');
    await expect(build()).rejects.toThrow(
      `The disk of ${options.imagesDirectory} became full while the guest image was built: free 2.0 GiB`,
    );
    expect(await left()).toEqual([]);
  });

  it('image build: is refused if it contains packages that the digest does not cover', async () => {
    await during(`echo "systemd 259" >>"$state/packages"`);
    await expect(build()).rejects.toThrow(
      /archive changed while .* \(now systemd 259\): start the build again/,
    );
    expect(await left()).toEqual([]);
  });

  it('image build: an abort ends its processes, mounts and files at once', async () => {
    const marker = path.join(folder, 'running');
    await during(
      `mount -t tmpfs tmpfs "$work/out"; (setsid bash -c "sleep 3600; :" $work &); : >"$work/out/file"; echo $work >${marker}.new; mv ${marker}.new ${marker}; sleep 3600`,
    );
    const stop = new AbortController();
    const building = build(stop.signal).catch((error: unknown) => error);
    const work = await eventually('the build runs', () => readFile(marker, 'utf8').catch(() => undefined), {
      deadlineMs: 20_000,
    }).then((text) => text.trim());
    stop.abort();
    expect(await building).toBeInstanceOf(HypervisorError);
    expect(await left()).toEqual([]);
    expect(await readFile('/proc/self/mounts', 'utf8')).not.toContain(work);
    expect(await commandLines()).not.toContain(work);
  });
});

describe('concurrent image builds', () => {
  it('concurrent image builds: produce the same image', async () => {
    const [one, other] = await Promise.all([build(), build()]);
    expect(other).toEqual(one);
    expect(await left()).toEqual([one.digest]);
  });

  it('concurrent image builds: remove the files of a killed builder, but not of a running one', async () => {
    const ended = spawn('true');
    await once(ended, 'exit');
    const abandoned = path.join(options.imagesDirectory, `build-${ended.pid}-abcdef`);
    const living = path.join(options.imagesDirectory, `build-${process.ppid}-abcdef`);
    for (const work of [abandoned, living]) await mkdir(path.join(work, 'tree'), { recursive: true });
    const image = await build();
    expect((await left()).sort()).toEqual([path.basename(living), image.digest].sort());
  });
});

/** Command lines of all processes, one per line. */
async function commandLines(): Promise<string> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const lines = await Promise.all(
    pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')),
  );
  return lines.join('\n').replaceAll('\0', ' ');
}

describe('unused image', () => {
  const buildWith = async (packages: string) => {
    await writeFile(path.join(state, 'packages'), packages);
    return build();
  };
  const list = (users: readonly ImageUser[] = []) =>
    installedImages({ ...options, stateDirectory: folder }, users);
  const record = async (file: string, image: string) => {
    const shape = { vcpus: 1, memoryMib: 768, diskGib: 4 };
    const content = { hostId: 'one', slot: 1, planName: 'small', shape, image, power: 'running' };
    await mkdir(path.dirname(path.join(folder, file)), { recursive: true });
    await writeFile(path.join(folder, file), JSON.stringify(content));
  };

  // Fails if the host's record, the template's record, or the database's host is ignored.
  it('unused image: not the newest, and used by no host, template or update', async () => {
    const booted = await buildWith('of a host');
    const restored = await buildWith('of a template');
    const former = await buildWith('of a host before its update');
    const old = await buildWith('of nothing');
    const newest = await buildWith('of the hosts to come');
    await record('hosts/one/host.json', booted.digest);
    await record('templates/small/template.json', restored.digest);
    const users = [
      { host: 'one', imageVersion: imageVersion(former.digest) },
      { host: 'unborn', imageVersion: undefined },
    ];
    const images = await list(users);
    expect(images.map(({ directory }) => directory)).toEqual(
      [newest, old, former, restored, booted].map(({ directory }) => directory),
    );
    const needs = images.map(({ isNewest, hosts, templates }) => ({ isNewest, hosts, templates }));
    expect(needs).toEqual([
      { isNewest: true, hosts: 0, templates: 0 },
      { isNewest: false, hosts: 0, templates: 0 },
      { isNewest: false, hosts: 1, templates: 0 },
      { isNewest: false, hosts: 0, templates: 1 },
      { isNewest: false, hosts: 1, templates: 0 },
    ]);
    expect(images[0]?.bytes).toBe(newest.bytes);
    expect(images.map(({ packages }) => packages.list)).toContainEqual(['of nothing']);

    const needless = images.filter((image) => !isNeeded(image));
    expect(needless.map(({ directory }) => directory)).toEqual([old.directory]);
    for (const image of needless) await removeImage(image);
    expect((await left()).sort()).toEqual(
      [newest, former, restored, booted].map(({ digest }) => digest).sort(),
    );
    expect((await findGuestImage(options))?.digest).toBe(newest.digest);
  });

  it('installed image: its suite, engine and kernel are those of its packages', async () => {
    options = { ...options, suite: 'bookworm' };
    await buildWith('docker.io 20.10.24-1\nlinux-image-6.1.0-37-amd64 6.1.140-1\nlinux-image-amd64 6.1\n');
    options = { ...options, suite: 'trixie' };
    const newest = await buildWith('docker.io 26.1.5-9+b9\nlinux-image-6.12.57+deb13-amd64 6.12.57-1\n');
    const contents = async () =>
      (await list()).map(({ suite, packages: { engine, kernel } }) => ({ suite, engine, kernel }));
    const former = { suite: 'bookworm', engine: '20.10.24', kernel: '6.1.0-37-amd64' };
    expect(await contents()).toEqual([
      { suite: 'trixie', engine: '26.1.5', kernel: '6.12.57+deb13-amd64' },
      former,
    ]);
    await rm(path.join(newest.directory, 'packages'));
    expect(await contents()).toEqual([{ suite: 'trixie', engine: undefined, kernel: undefined }, former]);
  });

  it('unused image: the list is empty if no image is installed', async () => {
    expect(await list()).toEqual([]);
  });
});
