import { mkdtemp, readdir, rm, statfs, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { newHostRecord } from '../../../../src/hypervisors/qemu/host-record.ts';
import type { Cgroups } from '../../../../src/hypervisors/qemu/launch/cgroups.ts';
import type { Vms } from '../../../../src/hypervisors/qemu/launch/vms.ts';
import { layoutOf } from '../../../../src/hypervisors/qemu/layout.ts';
import { createSuspension } from '../../../../src/hypervisors/qemu/memory/suspension.ts';
import { noRegistries } from '../../../../src/core/hypervisor/host-spec.ts';

describe('failed suspend', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'berth-suspend-'));
  });
  afterEach(() => rm(folder, { recursive: true }));

  const options = { site: 'cafe', runDirectory: '/nonexistent', hostNetwork: '10.0.0.0/24', firstUid: 1 };
  const recordOf = (memoryMib: number) =>
    newHostRecord(
      {
        hostId: 'host',
        slot: 1,
        planName: 'small',
        shape: { vcpus: 1, memoryMib, diskGib: 4 },
        publishedPorts: { first: 1, count: 0 },
        egress: { kind: 'none' },
        registries: noRegistries,
      },
      'image',
    );
  /** A host whose QEMU sends half of its memory and then ends. */
  function host() {
    const at = { ...layoutOf({ ...options, stateDirectory: folder }, 'host', 1), directory: folder };
    let saves = 0;
    const vms: Pick<Vms, 'save'> = {
      async save(_, file) {
        saves += 1;
        await writeFile(file, 'half');
        throw new Error('QEMU has gone');
      },
    };
    const cgroups: Pick<Cgroups, 'processes'> = { processes: () => Promise.resolve([1]) };
    const sleep = createSuspension({ cgroups: cgroups as Cgroups, vms: vms as Vms });
    return { suspend: (memoryMib: number) => sleep.suspend(at, recordOf(memoryMib)), saves: () => saves };
  }

  // Fails without the wipe in suspension.ts: half of a tenant's memory stayed on disk.
  it('failed suspend: leaves nothing of the memory on disk', async () => {
    await expect(host().suspend(1)).rejects.toThrow('QEMU has gone');
    expect(await readdir(folder)).toEqual([]);
  });

  // Fails if only the disk reserve is checked: QEMU was asked for its memory.
  it('suspend: is refused before it starts if the disk lacks space for the whole memory', async () => {
    const { bavail, bsize } = await statfs(folder);
    const larger = host();
    await expect(larger.suspend(Math.ceil((bavail * bsize) / 1024 ** 2))).rejects.toThrow(
      /is full: .* MiB are needed, and 2048 MiB are reserved for the node/,
    );
    expect(larger.saves()).toBe(0);
  });
});
