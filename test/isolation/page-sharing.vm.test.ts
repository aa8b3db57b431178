import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { makeHosts, type TestHost, type TestHosts } from './support/hosts.ts';

/** The operator's choice: pages of the template that all its hosts share, or memory of each host's own. */
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
    // Seen to fail where a restore hands over the template's memory in place of a copy of it.
    none: 'no host shares a page of its memory, from its restore to its wake from disk',
  };
  const looks = { template: shared, none: alone };
  it(wanted[pageSharing], () => looks[pageSharing]());

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
      await eventually('it has its clock', () => driver.identify(host.spec));
      await eventually('its engine answers', () => driver.engineAnswers(host.spec), { deadlineMs: 60_000 });
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

/** The mapping that is the guest's memory, as proc(5) tells it: what it is made from, and how much others map as well. */
async function guestMemory(host: TestHost): Promise<{ file: string; sharedKib: number }> {
  const smaps = await readFile(`/proc/${await host.pid()}/smaps`, 'utf8');
  const mappings = smaps.split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  const size = (mapping: string, name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(mapping)?.[1] ?? 0);
  const [mapping = ''] = mappings.filter((one) => size(one, 'Size') === host.spec.shape.memoryMib * 1024);
  // Device and inode tell one memory file from another of the same name.
  const [, file = ''] = /^\S+ \S+ \S+ (\S+ \d+\s.*)$/m.exec(mapping) ?? [];
  return { file, sharedKib: size(mapping, 'Shared_Clean') + size(mapping, 'Shared_Dirty') };
}
