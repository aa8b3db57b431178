import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { templateStart } from '../../src/hypervisors/qemu/template/template-shape.ts';
import { eventually } from '../support/eventually.ts';
import { makeHosts, type TestHost, type TestHosts } from './support/hosts.ts';

/** The operator's choice: hosts share the template's pages, or each has its own copy. */
describe.each(['template', 'none'] as const)('page sharing: %s', { timeout: 1_200_000 }, (pageSharing) => {
  let hosts: TestHosts;
  let pair: readonly TestHost[];
  beforeAll(async () => {
    hosts = await makeHosts({ options: { pageSharing } });
    pair = await Promise.all([hosts.make(), hosts.make()]);
  }, 1_200_000);
  afterAll(() => hosts.close(), 300_000);

  const wanted = {
    template: 'hosts map the same memory, and share pages of it',
    // Fails if a restore passes the template's memory instead of a copy.
    none: 'no host shares a page of its memory, from its restore to its wake from disk',
  };
  const looks = { template: shared, none: alone };
  it(`page sharing ${pageSharing}: ${wanted[pageSharing]}`, () => looks[pageSharing]());

  async function shared() {
    const [first, second] = await Promise.all(pair.map(guestMemory));
    expect(first?.file).toMatch(/memfd:berth-template/);
    expect(first?.file).toBe(second?.file);
    expect(Math.min(first?.sharedKib ?? 0, second?.sharedKib ?? 0)).toBeGreaterThan(10 * 1024);
  }

  async function alone() {
    const [host] = pair;
    if (host === undefined) throw new Error('no host was made');
    expect(await hosts.driver.startedFrom(host.spec.hostId)).toBe('template');
    const seen = await Promise.all(pair.map(guestMemory));
    expect(new Set(seen.map(({ file }) => file)).size).toBe(2);
    expect(seen.map(({ sharedKib }) => sharedKib)).toEqual([0, 0]);

    const { driver } = hosts;
    const answers = async () => {
      await eventually('the guest has its clock', () => driver.identify(host.spec));
      await eventually('the engine answers', () => driver.engineAnswers(host.spec), { deadlineMs: 60_000 });
      expect((await guestMemory(host)).sharedKib).toBe(0);
      expect(await driver.verify(host.spec.hostId)).toEqual([]);
    };
    await driver.pause(host.spec.hostId);
    await driver.resume(host.spec);
    await answers();
    await driver.suspend(host.spec.hostId);
    await driver.prepare(host.spec);
    await driver.resume(host.spec);
    await driver.connect(host.spec);
    await answers();
  }
});

/** The guest's memory mapping from smaps (proc(5)): its file, and how much of it other processes map too. */
async function guestMemory(host: TestHost): Promise<{ file: string; sharedKib: number }> {
  const smaps = await readFile(`/proc/${await host.pid()}/smaps`, 'utf8');
  const mappings = smaps.split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  const size = (mapping: string, name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(mapping)?.[1] ?? 0);
  const [mapping = ''] = mappings.filter((one) => size(one, 'Size') === templateStart.memoryMib * 1024);
  // Device and inode distinguish memory files of the same name.
  const [, file = ''] = /^\S+ \S+ \S+ (\S+ \d+\s.*)$/m.exec(mapping) ?? [];
  return { file, sharedKib: size(mapping, 'Shared_Clean') + size(mapping, 'Shared_Dirty') };
}
