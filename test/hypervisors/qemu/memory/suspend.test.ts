import { mkdir, mkdtemp, readdir, readFile, rm, statfs, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { noRegistries } from '../../../../src/core/hypervisor/host-spec.ts';
import { HypervisorError } from '../../../../src/core/hypervisor/hypervisor-error.ts';
import {
  type HostRecord,
  newHostRecord,
  readHostRecord,
  writeHostRecord,
} from '../../../../src/hypervisors/qemu/host-record.ts';
import type { Cgroups } from '../../../../src/hypervisors/qemu/launch/cgroups.ts';
import { LoadFailedError } from '../../../../src/hypervisors/qemu/launch/load-failed-error.ts';
import type { Vms } from '../../../../src/hypervisors/qemu/launch/vms.ts';
import { layoutOf } from '../../../../src/hypervisors/qemu/layout.ts';
import { type NodeKey, memoryKeyOf } from '../../../../src/hypervisors/qemu/memory/memory-key.ts';
import { emptyBase, type MemoryBase } from '../../../../src/hypervisors/qemu/memory/memory-base.ts';
import type { SavedMemory } from '../../../../src/hypervisors/qemu/memory/suspended-memory.ts';
import { createSuspension } from '../../../../src/hypervisors/qemu/memory/suspension.ts';
import type { LoadedTemplate } from '../../../../src/hypervisors/qemu/template/template-store.ts';
import { silentLogger } from '../../../support/logger.ts';

const hostId = '0b5b2f0e-7a3c-4f7e-9a55-1f0a3a7a2a11';
const node: NodeKey = { accelerator: 'tcg', qemu: 'QEMU 7.2', type: 'pc-q35-7.2' };

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'berth-suspend-'));
});
afterEach(() => rm(folder, { recursive: true }));

const recordOf = (memoryMib: number) =>
  newHostRecord(
    {
      hostId,
      slot: 1,
      planName: 'small',
      shape: { vcpus: 1, memoryMib, diskGib: 4 },
      publishedPorts: { first: 1, count: 0 },
      egress: { kind: 'none' },
      registries: noRegistries,
    },
    'image',
  );

/**
 * A suspension over a QEMU that is not one.
 * @param save writes what QEMU sends.
 * @param template the memory of the template that the host was restored from, if it can be loaded.
 */
function makeHost({
  save = (file: string) => writeFile(file, 'all of the memory'),
  key = node,
  template,
}: { save?: (file: string) => Promise<void>; key?: NodeKey; template?: LoadedTemplate } = {}) {
  const options = { site: 'cafe', runDirectory: '/nonexistent', hostNetwork: '10.0.0.0/24', firstUid: 1 };
  const at = layoutOf({ ...options, stateDirectory: folder }, hostId, 1);
  const qemu = { isAlive: true, saves: 0, runs: 0, loads: 0 };
  const bases: MemoryBase[] = [];
  const loaded: SavedMemory[] = [];
  const vms: Pick<Vms, 'save' | 'run'> = {
    save(_, file, _shape, base) {
      qemu.saves += 1;
      bases.push(base);
      return save(file);
    },
    run() {
      qemu.runs += 1;
      return Promise.resolve();
    },
  };
  const cgroups: Pick<Cgroups, 'processes' | 'kill'> = {
    processes: () => Promise.resolve(qemu.isAlive ? [1] : []),
    kill() {
      qemu.isAlive = false;
      return Promise.resolve();
    },
  };
  const suspension = createSuspension({
    cgroups: cgroups as Cgroups,
    vms: vms as Vms,
    templates: { load: (name) => Promise.resolve(template?.key === name ? template : undefined) },
    keyOf: ({ shape }) => memoryKeyOf(key, { start: shape, room: shape }),
    logger: silentLogger,
  });
  const record = async () => (await readHostRecord(at.record)) ?? expect.fail('no record');
  return {
    ...{ at, qemu, bases, loaded, suspension, record },
    files: async () => (await readdir(at.directory)).sort(),
    async suspend(memoryMib = 1, fields: Partial<HostRecord> = {}) {
      await writeHostRecord(at.record, { ...recordOf(memoryMib), ...fields });
      await suspension.suspend(at, await record());
    },
    /** @param load what QEMU does with the memory. */
    resume: async (load: () => Promise<void> = () => Promise.resolve()) =>
      suspension.resume(at, await record(), async (memory) => {
        loaded.push(memory);
        qemu.loads += 1;
        qemu.isAlive = true;
        await load();
      }),
  };
}

describe('failed suspend', () => {
  const failing = () =>
    makeHost({
      async save(file) {
        await writeFile(file, 'half');
        throw new Error('QEMU has gone');
      },
    });

  // Fails without the wipe in suspension.ts: half of a tenant's memory stayed on disk.
  it('failed suspend: leaves nothing of the memory on disk', async () => {
    const host = failing();
    await expect(host.suspend()).rejects.toThrow('QEMU has gone');
    expect(await host.files()).toEqual(['host.json']);
    expect(host.qemu.isAlive).toBe(true);
  });

  // Fails if only the disk reserve is checked: QEMU was asked for its memory.
  it('suspend: is refused before it starts if the disk lacks space for the whole memory', async () => {
    const { bavail, bsize } = await statfs(folder);
    const host = failing();
    await expect(host.suspend(Math.ceil((bavail * bsize) / 1024 ** 2))).rejects.toThrow(
      /is full: .* MiB are needed, and 2048 MiB are reserved for the node/,
    );
    expect(host.qemu.saves).toBe(0);
  });
});

describe('suspended memory', () => {
  it('suspended memory: is loaded and wiped before the guest runs', async () => {
    const host = makeHost();
    await host.suspend();
    expect(await host.files()).toEqual(['host.json', 'memory', 'memory.json']);
    expect(await host.resume()).toBe('resumed');
    expect(host.qemu).toMatchObject({ loads: 1, runs: 1 });
    expect(await host.files()).toEqual(['host.json']);
    expect(await host.record()).toMatchObject({ power: 'running' });
  });

  const template = { key: 'abc', memoryDigest: 'def' } as LoadedTemplate;
  const image = () => path.join(folder, 'hosts', hostId, 'memory');

  // Fails if the template is not recorded: the host would run with holes in its memory.
  it('suspended memory of a restored host: is the difference from its template, and is loaded over it', async () => {
    const host = makeHost({ template });
    await host.suspend(1, { template: 'abc', startedFrom: 'pool' });
    expect(host.bases).not.toContain(emptyBase);
    await host.resume();
    expect(host.loaded).toEqual([{ image: image(), template: { key: 'abc', digest: 'def' } }]);
  });

  it.each<[string, LoadedTemplate | undefined, Partial<HostRecord>]>([
    ['a booted host', template, { template: 'abc', startedFrom: 'boot' }],
    ['a host that never had a template', template, { startedFrom: 'boot' }],
    ['a host whose template can not be loaded', undefined, { template: 'abc', startedFrom: 'template' }],
  ])('suspended memory of %s: is loaded over empty memory', async (_, known, fields) => {
    const host = makeHost({ ...(known && { template: known }) });
    await host.suspend(1, fields);
    expect(host.bases).toEqual([emptyBase]);
    await host.resume();
    expect(host.loaded).toEqual([{ image: image(), template: undefined }]);
  });

  const unusable: Record<string, (host: ReturnType<typeof makeHost>) => Promise<unknown>> = {
    'without a record of what it needs': ({ at }) => rm(`${at.directory}/memory.json`),
    'with an empty record': ({ at }) => writeFile(`${at.directory}/memory.json`, ''),
    'that was cut short': ({ at }) => writeFile(`${at.directory}/memory`, 'all of'),
    'in which a byte has changed': ({ at }) => writeFile(`${at.directory}/memory`, 'all of the mem0ry'),
  };
  // Fails without the fallback in suspension.ts: the host could neither be woken nor stopped, nor updated.
  it.each(Object.keys(unusable))(
    'memory %s: is set aside, and the host can start without it',
    async (how) => {
      const host = makeHost();
      await host.suspend();
      await unusable[how]?.(host);
      expect(await host.resume()).toBe('memory lost');
      expect(host.qemu).toMatchObject({ isAlive: false, runs: 0 });
      expect(await host.suspension.isSuspended(host.at)).toBe(false);
      expect(await host.resume()).toBe('nothing');
      expect((await host.record()).memoryLost?.why).toMatch(/^\//);

      // It is left on disk until the host has started without it.
      expect(await host.files()).toContain('memory.unusable');
      await host.suspension.wipeUnusable(host.at);
      expect(await host.files()).not.toContain('memory.unusable');
    },
  );

  it.each<[keyof NodeKey, Partial<NodeKey>]>([
    ['qemu', { qemu: 'QEMU 8.0' }],
    ['type', { type: 'pc-q35-8.0' }],
    ['accelerator', { accelerator: 'kvm' }],
    ['processor', { processor: 'another model' }],
    ['kernel', { kernel: 'another kernel' }],
  ])('memory saved with another %s: is not loaded', async (name, change) => {
    const host = makeHost();
    await host.suspend();
    const elsewhere = makeHost({ key: { ...node, ...change } });
    elsewhere.qemu.isAlive = false;
    expect(await elsewhere.resume()).toBe('memory lost');
    expect(elsewhere.qemu.loads).toBe(0);
    expect((await host.record()).memoryLost?.why).toContain(`${name}: "`);
  });

  it('memory that QEMU refuses: is set aside at the first try', async () => {
    const host = makeHost();
    await host.suspend();
    const refuse = () => Promise.reject(new LoadFailedError('load of migration failed', true, { cause: 0 }));
    expect(await host.resume(refuse)).toBe('memory lost');
    expect(host.qemu.isAlive).toBe(false);
  });

  it('memory whose load fails for a reason that may pass: is set aside at the third try', async () => {
    const host = makeHost();
    await host.suspend();
    const fail = () => Promise.reject(new LoadFailedError('QEMU took too long', false, { cause: 0 }));
    for (const count of [1, 2]) {
      await expect(host.resume(fail), String(count)).rejects.toThrow('QEMU took too long');
      expect(await host.suspension.isSuspended(host.at)).toBe(true);
    }
    expect(await host.resume(fail)).toBe('memory lost');
  });

  it('suspended host whose VM can not be started: keeps its memory however often it is tried', async () => {
    const host = makeHost();
    await host.suspend();
    const fail = () => Promise.reject(new HypervisorError('QEMU did not start'));
    for (let count = 1; count <= 5; count += 1)
      await expect(host.resume(fail)).rejects.toThrow('did not start');
    expect(await host.resume()).toBe('resumed');
  });

  // Fails if the memory is renamed before its loss is recorded: nothing would tell why the host has booted.
  it('worker killed while it sets memory aside: the next one finds it unusable again', async () => {
    const host = makeHost();
    await host.suspend();
    await writeFile(`${host.at.directory}/memory`, 'damaged');
    // Not a file, so that it can't be wiped to make room.
    await mkdir(`${host.at.directory}/memory.unusable`);
    await expect(host.resume()).rejects.toThrow();
    expect((await host.record()).memoryLost?.why).toContain('damaged');
    await rm(`${host.at.directory}/memory.unusable`, { recursive: true });
    expect(await host.resume()).toBe('memory lost');
    expect(await readFile(`${host.at.directory}/memory.unusable`, 'utf8')).toBe('damaged');
  });
});
