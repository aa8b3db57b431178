import { open, readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MemoryLostError } from '../../../../src/core/hypervisor/memory-lost-error.ts';
import { createQemuHypervisor } from '../../../../src/hypervisors/qemu/qemu.ts';
import { templateShape, templateStart } from '../../../../src/hypervisors/qemu/template/template-shape.ts';
import { makeHosts, type TestHost, type TestHosts } from '../../../isolation/support/hosts.ts';
import { eventually } from '../../../support/eventually.ts';
import { silentLogger } from '../../../support/logger.ts';
import { pagesOf } from './support/saved-stream.ts';

const mib = 1024 ** 2;
const pageBytes = 4096;
const deadline = { deadlineMs: 120_000, everyMs: 50 };

/** Suspended hosts are stored as the difference from their template. */
describe('suspended memory as a difference', { timeout: 1_200_000 }, () => {
  let hosts: TestHosts;
  const lost: string[] = [];
  beforeAll(async () => {
    const logger = {
      ...silentLogger,
      error: (fields: { event?: string; why?: string }) => {
        if (fields.event === 'host.memory_lost') lost.push(fields.why ?? '');
      },
    } as typeof silentLogger;
    hosts = await makeHosts({ ownFiles: true, options: { logger } });
  }, 1_200_000);
  afterAll(() => hosts.close(), 300_000);

  const imageOf = (host: TestHost) => path.join(host.layout.directory, 'memory');

  async function wake({ spec }: TestHost): Promise<void> {
    const { driver } = hosts;
    await driver.prepare(spec);
    await driver.resume(spec);
    await eventually('the guest has its clock', () => driver.identify(spec), deadline);
    await driver.connect(spec);
    await eventually('the engine answers', () => driver.engineAnswers(spec), deadline);
  }

  /** The first `bytes` of the memory of a paused VM, as its QEMU sees it, that was mapped with a size of `mapped` bytes. */
  async function memoryOf(host: TestHost, bytes: number, mapped = bytes): Promise<Buffer> {
    const pid = await host.pid();
    const maps = (await readFile(`/proc/${pid}/maps`, 'utf8')).split('\n').map((line) => line.split(/[- ]/));
    const found = maps.find(
      ([from = '', to = '']) => Number.parseInt(to, 16) - Number.parseInt(from, 16) === mapped,
    );
    const from = Number.parseInt(found?.[0] ?? '', 16);
    const memory = Buffer.allocUnsafe(bytes);
    const file = await open(`/proc/${pid}/mem`, 'r');
    for (let at = 0; at < bytes; at += mib) await file.read(memory, at, mib, from + at);
    await file.close();
    return memory;
  }

  async function templateMemory(): Promise<string> {
    const folder = path.join(hosts.options.stateDirectory, 'templates');
    const [name] = (await readdir(folder, { withFileTypes: true })).filter((entry) => entry.isDirectory());
    return path.join(folder, name?.name ?? '', 'memory');
  }

  // Fails if the filter drops a page that differs, or a zero page whose template page is not zero.
  it('suspend: the image and the template together are the memory, and a container continues with its data', async () => {
    const { driver, options } = hosts;
    const main = templateStart.memoryMib * mib;
    const added = (templateShape.memoryMib - templateStart.memoryMib) * mib;
    const room = options.room.memoryMib * mib - main;
    const zeros = Buffer.alloc(pageBytes);
    const wrongPages = (
      memory: Buffer,
      pages: ReadonlyMap<number, Buffer | undefined>,
      base: (at: number) => Buffer,
    ) => {
      const wrong: number[] = [];
      for (let at = 0; at < memory.length; at += pageBytes) {
        const page = pages.has(at) ? (pages.get(at) ?? zeros) : base(at);
        if (!page.equals(memory.subarray(at, at + pageBytes))) wrong.push(at);
      }
      return wrong;
    };
    const host = await hosts.bringUp(hosts.newSpec());
    const attacker = await host.attacker();
    // A file in memory, and pages that were freed.
    await attacker.root(
      'mkdir -p /data; mount -t tmpfs none /data; head -c 8000000 /dev/urandom > /data/file; head -c 30000000 /dev/urandom > /data/freed; rm /data/freed; sync',
    );
    const digest = await attacker.root('sha256sum /data/file');
    const started = await attacker.root('cut -d" " -f22 /proc/1/stat; hostname');
    for (let suspensions = 0; suspensions < 2; suspensions += 1) {
      await driver.pause(host.spec.hostId);
      const memory = { main: await memoryOf(host, main), added: await memoryOf(host, added, room) };
      await driver.suspend(host.spec.hostId);
      const { size } = await stat(imageOf(host));
      const image = await readFile(imageOf(host));
      const template = await readFile(await templateMemory());
      const ofTemplate = (at: number) => template.subarray(at, at + pageBytes);
      expect(wrongPages(memory.main, pagesOf(image), ofTemplate)).toEqual([]);
      expect(wrongPages(memory.added, pagesOf(image, '/added'), () => zeros)).toEqual([]);
      expect(memory.added.every((byte) => byte === 0)).toBe(false);
      expect(size).toBeLessThan((main + added) / 4);
      await wake(host);
      expect(await attacker.root('sha256sum /data/file')).toBe(digest);
      expect(await attacker.root('cut -d" " -f22 /proc/1/stat; hostname')).toBe(started);
      expect(await driver.verify(host.spec.hostId)).toEqual([]);
    }
    expect(await driver.startedFrom(host.spec.hostId)).toBe('template');
    await driver.destroy(host.spec.hostId);
  });

  it('suspend: a host that was booted continues with its data', async () => {
    const { driver } = hosts;
    const { spec } = await hosts.bringUp(hosts.newSpec());
    await driver.stop(spec.hostId);
    const host = await hosts.bringUp(spec);
    expect(await driver.startedFrom(spec.hostId)).toBe('boot');
    const attacker = await host.attacker();
    await attacker.root(
      'mkdir -p /data; mount -t tmpfs none /data; head -c 8000000 /dev/urandom > /data/file',
    );
    const digest = await attacker.root('sha256sum /data/file');
    await driver.suspend(spec.hostId);
    await wake(host);
    expect(await attacker.root('sha256sum /data/file')).toBe(digest);
    await driver.destroy(spec.hostId);
  });

  it('suspend: a host whose template is damaged boots from its disk', async () => {
    const { driver } = hosts;
    const host = await hosts.bringUp(hosts.newSpec());
    await driver.suspend(host.spec.hostId);
    const file = await templateMemory();
    const content = await open(file, 'r+');
    await content.write(Buffer.from('damaged'), 0, 7, 5 * mib);
    await content.close();
    // Another worker loads the template again.
    const next = await createQemuHypervisor(hosts.options);
    await next.open();
    await next.prepare(host.spec);
    await expect(next.resume(host.spec)).rejects.toThrow(MemoryLostError);
    expect(lost).toEqual([expect.stringMatching(/difference from the template .* which is bad/)]);
    await next.prepare(host.spec);
    await next.start(host.spec);
    expect(await next.startedFrom(host.spec.hostId)).toBe('boot');
    await next.destroy(host.spec.hostId);
    await next.close();
  });
});
