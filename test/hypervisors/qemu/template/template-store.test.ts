import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { createDigests } from '../../../../src/hypervisors/qemu/integrity/digests.ts';
import { LoadFailedError } from '../../../../src/hypervisors/qemu/launch/load-failed-error.ts';
import type { QemuDeps } from '../../../../src/hypervisors/qemu/deps.ts';
import type { GuestImage } from '../../../../src/hypervisors/qemu/image/guest-image.ts';
import { templateFiles } from '../../../../src/hypervisors/qemu/template/template-record.ts';
import {
  createTemplateStore,
  type TemplateStore,
} from '../../../../src/hypervisors/qemu/template/template-store.ts';
import { createTemplates } from '../../../../src/hypervisors/qemu/templates.ts';
import { silentLogger } from '../../../support/logger.ts';

const image = { digest: 'image', commandLine: 'quiet' } as GuestImage;
const node = { accelerator: 'tcg', qemu: 'QEMU 7.2', type: 'pc-q35-7.2' } as const;
const refusal = new LoadFailedError('load of migration failed', true, { cause: undefined });

let state: string;
let store: TemplateStore;
const stores: TemplateStore[] = [];

function openStore(
  key: typeof node | { accelerator: 'tcg'; qemu: string; type: string } = node,
  of = image,
): TemplateStore {
  const libexecDirectory = path.join(import.meta.dirname, '..', '..', '..', '..', 'libexec');
  const options = {
    stateDirectory: state,
    libexecDirectory,
    room: { vcpus: 4, memoryMib: 4096, diskGib: 64 },
  };
  const opened = createTemplateStore(
    options,
    { find: () => of, require: () => of },
    key,
    createDigests(),
    silentLogger,
  );
  stores.push(opened);
  return opened;
}

beforeEach(async () => {
  state = await mkdtemp(path.join(tmpdir(), 'berth-templates-'));
  store = openStore();
  vi.useFakeTimers({ toFake: ['performance'] });
});
afterEach(async () => {
  vi.useRealTimers();
  for (const opened of stores.splice(0)) await opened.close();
  await rm(state, { recursive: true });
});

const key = () => store.key(image);

/** Puts a template on disk, as if it had been made. */
async function make(madeAt = '2026-01-01T00:00:00.000Z', content = 'content', as = key()): Promise<string> {
  const directory = store.directory(as);
  await mkdir(directory, { recursive: true });
  for (const name of templateFiles) await writeFile(path.join(directory, name), content);
  const digest = createHash('sha256').update(content).digest('hex');
  const files = Object.fromEntries(templateFiles.map((name) => [name, digest]));
  const record = { key: as, image: image.digest, madeAt, files };
  await writeFile(path.join(directory, 'template.json'), JSON.stringify(record));
  return as;
}

// Fails without the pause: one failed restore switched template and pool off until the worker was restarted.
it('template whose restore has failed: is used again after a pause, which grows', async () => {
  const made = await make();
  expect(await store.load(made)).toBeDefined();
  for (const pauseMs of [5_000, 10_000, 20_000]) {
    await store.restoreFailed(made, new Error('no space left on device'));
    // Others at the same time fail for the same reason.
    await store.restoreFailed(made, new Error('no space left on device'));
    vi.advanceTimersByTime(pauseMs - 1);
    expect(await store.has(made)).toBe(false);
    expect(await store.load(made)).toBeUndefined();
    // Nothing is wrong with it, so it is not made again.
    expect(await store.isMade(made)).toBe(true);
    vi.advanceTimersByTime(1);
    expect(await store.has(made)).toBe(true);
  }
  expect(await store.load(made)).toBeDefined();
  store.restored(made);
  await store.restoreFailed(made, new Error('QEMU did not start in time'));
  vi.advanceTimersByTime(5_000);
  expect(await store.has(made)).toBe(true);
});

it('template that QEMU refuses three times in a row: is bad, and another one is made beside it', async () => {
  const bad = await make();
  const refuse = async () => {
    await store.restoreFailed(bad, refusal);
    vi.advanceTimersByTime(300_000);
  };
  await refuse();
  await refuse();
  await store.restoreFailed(bad, new Error('QEMU was killed'));
  vi.advanceTimersByTime(300_000);
  await refuse();
  await refuse();
  expect(key()).toBe(bad);
  await refuse();
  expect(await store.has(bad)).toBe(false);
  expect(key()).not.toBe(bad);
  expect(store.badKeys(image)).toEqual([bad]);
  // Disks of hosts are overlays of its disk.
  expect(await readdir(store.directory(bad))).toContain('disk.qcow2');
  expect(await store.isMade(key())).toBe(false);

  const next = await make();
  expect(await store.has(next)).toBe(true);
  // Another worker knows it too.
  expect(openStore().key(image)).toBe(next);
  await store.removeOthers(new Set([bad]));
  expect(await readdir(store.directory(bad))).toContain('disk.qcow2');
  await store.removeOthers(new Set());
  expect(await readdir(store.directory(bad))).toEqual(['damaged', 'template.json']);
  expect(key()).toBe(next);
});

it.each(templateFiles)('template whose %s is damaged or missing: is bad at once', async (name) => {
  const changed = await make();
  await writeFile(path.join(store.directory(changed), name), 'other');
  expect(await store.load(changed)).toBeUndefined();
  const missing = await make();
  expect(missing).not.toBe(changed);
  await rm(path.join(store.directory(missing), name));
  expect(await store.load(missing)).toBeUndefined();
  expect(store.badKeys(image)).toEqual([changed, missing]);
});

// Fails if templates stay loaded until the worker ends: each image would cost the node's memory once more.
it('template of a former image: its memory is released some time after its last use, and loaded again if needed', async () => {
  const former = await make();
  const before = await store.load(former);
  const other = { ...image, digest: 'other' };
  const next = openStore(node, other);
  const current = await make('2026-01-02T00:00:00.000Z', 'other', next.key(other));
  const [ofFormer, ofCurrent] = [await next.load(former), await next.load(current)];
  vi.advanceTimersByTime(59_999);
  await next.unloadOthers(60_000);
  expect([ofFormer?.memory.fd, ofCurrent?.memory.fd]).not.toContain(-1);
  vi.advanceTimersByTime(1);
  await next.unloadOthers(60_000);
  expect(ofFormer?.memory.fd).toBe(-1);
  expect(ofCurrent?.memory.fd).not.toBe(-1);
  expect((await next.load(former))?.memory.fd).not.toBe(-1);
  expect(before?.memory.fd).not.toBe(-1);
});

// Fails if what was loaded is found by the key only: the new one was taken for a damaged old one.
it('template that was removed and made again by another worker: is loaded again', async () => {
  const made = await make();
  expect(await store.load(made)).toBeDefined();
  await rm(store.directory(made), { recursive: true });
  await make('2026-02-02T00:00:00.000Z', 'newer content');
  expect(await store.load(made)).toBeDefined();
  expect(store.badKeys(image)).toEqual([]);
});

describe('template that saved memory needs', () => {
  const digestOf = (content: string) => createHash('sha256').update(content).digest('hex');
  const isLost = (pattern: RegExp) =>
    expect.objectContaining({
      message: expect.stringMatching(pattern) as string,
      isRefused: true,
    }) as unknown;

  // Fails if it is looked up like that of a new host: a busy node cost suspended hosts their memory.
  it('required template: is also given while no host is restored from it', async () => {
    const made = await make();
    await store.restoreFailed(made, new Error('QEMU was killed'));
    expect(await store.load(made)).toBeUndefined();
    expect((await store.require({ key: made, digest: digestOf('content') })).key).toBe(made);
  });

  it('required template: is lost if it is gone, was made again with another memory, or is damaged', async () => {
    const made = await make();
    const needed = { key: made, digest: digestOf('content') };
    await expect(store.require({ key: 'other', digest: needed.digest })).rejects.toEqual(isLost(/is gone$/));
    await make('2026-02-02T00:00:00.000Z', 'newer content');
    await expect(store.require(needed)).rejects.toEqual(isLost(/was made again$/));
    await make();
    await writeFile(path.join(store.directory(made), 'memory'), 'damaged');
    await expect(store.require(needed)).rejects.toEqual(isLost(/is bad$/));
  });

  it('required template: can be required again if it could not be loaded for a reason that may pass', async () => {
    const made = await make();
    await store.close();
    await expect(store.require({ key: made, digest: digestOf('content') })).rejects.not.toBeInstanceOf(
      LoadFailedError,
    );
  });
});

it('template key: depends on the versions of QEMU and of its type of VM', () => {
  const keys = [node, { ...node, qemu: 'QEMU 7.2 of another package' }, { ...node, type: 'pc-q35-8.0' }].map(
    (one) => openStore(one).key(image),
  );
  expect(new Set(keys).size).toBe(3);
});

it('template that is bad each time: is made again three times only, and the error says where to look', async () => {
  const locks = { tryWithLock: (_: string, act: () => Promise<void>) => act() };
  const deps = { templates: store, locks, image: { next: () => image } } as unknown as QemuDeps;
  for (let count = 0; count < 4; count += 1) {
    await writeFile(path.join(store.directory(await make()), 'damaged'), 'why');
  }
  const making = createTemplates(deps).makeTemplate(() => undefined, AbortSignal.timeout(5_000));
  await expect(making).rejects.toThrow(/was bad each time it was made \(4 times\)\. The files "damaged" in/);
});
