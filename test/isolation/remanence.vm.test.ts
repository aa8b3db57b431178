import { randomBytes } from 'node:crypto';
import { open, readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cutOff } from './support/cut-off.ts';
import { makeHosts, type TestHost, type TestHosts } from './support/hosts.ts';

/** A tenant's data is destroyed with its host. */
describe('remanence', { timeout: 960_000 }, () => {
  let hosts: TestHosts;
  beforeAll(async () => {
    hosts = await makeHosts();
  }, 1_200_000);
  afterAll(() => hosts.close(), 300_000);

  /** Writes a canary to the guest's disk and memory, and makes sure that it has reached the node. */
  async function plant(host: TestHost): Promise<Buffer> {
    const canary = randomBytes(24).toString('hex');
    const attacker = await host.attacker();
    const printed = await attacker.root(`
      busybox yes ${canary} | busybox head -c 4000000 > /host/var/canary; sync
      busybox cp /host/var/canary /host/tmp/canary; echo planted`);
    expect(printed).toContain('planted');
    const found = await Promise.all([
      diskHolds(host.layout.disk, canary),
      memoryHolds(await host.pid(), canary),
    ]);
    expect(found).toEqual([true, true]);
    return Buffer.from(canary);
  }

  it('13: destroy: nothing of the host is left, and its canary is in no later host', async () => {
    // Fails without truncate in wipeDisk: a process that had the disk open read the canary.
    const first = await hosts.make();
    const canary = await plant(first);
    const held = await open(first.layout.disk, 'r');
    const pid = await first.pid();
    await hosts.driver.destroy(first.spec.hostId);
    expect(await hosts.residue(first.spec)).toEqual([]);
    // A zombie has no memory.
    expect(await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).toBe('');
    expect((await held.stat()).size).toBe(0);
    await held.close();

    const next = await hosts.make({ slot: first.spec.slot });
    expect(next.layout.uid).toBe(first.layout.uid);
    expect(await diskHolds(next.layout.disk, canary.toString())).toBe(false);
    expect(await memoryHolds(await next.pid(), canary.toString())).toBe(false);
    await hosts.driver.destroy(next.spec.hostId);
  });

  it('13: destroy: nothing is left after a worker was killed before each change and another one finished', async () => {
    // Fails without truncate in wipeDisk, and if the host's record is removed before its network.
    let end = '';
    let unfinished = 0;
    for (let change = 1; end !== 'done'; change += 1) {
      const host = await hosts.make();
      const held = await open(host.layout.disk, 'r');
      end = await cutOff(hosts.options, ['destroy', host.spec.hostId], change);
      // The next worker finds the rest of the host and finishes the delete.
      if ((await hosts.driver.list()).some(({ hostId }) => hostId === host.spec.hostId)) unfinished += 1;
      await hosts.driver.destroy(host.spec.hostId);
      expect(await hosts.residue(host.spec), `killed before change ${change}`).toEqual([]);
      expect((await held.stat()).size, `killed before change ${change}`).toBe(0);
      await held.close();
    }
    expect(unfinished).toBeGreaterThan(5);
  });
});

async function diskHolds(file: string, text: string): Promise<boolean> {
  const handle = await open(file, 'r');
  try {
    return await holds(text, async (chunk, at) => (await handle.read(chunk, 0, chunk.length, at)).bytesRead);
  } finally {
    await handle.close();
  }
}

/** All writable memory of a process that it has used: reading the rest, such as the room for added memory, takes memory. */
async function memoryHolds(pid: number, text: string): Promise<boolean> {
  const handle = await open(`/proc/${pid}/mem`, 'r');
  try {
    const mappings = (await readFile(`/proc/${pid}/smaps`, 'utf8')).split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
    for (const mapping of mappings) {
      const [, from = '', to = ''] = /^([0-9a-f]+)-([0-9a-f]+) rw/.exec(mapping) ?? [];
      const isUsed = /^(?:Rss|Swap): +[1-9]/m.test(mapping);
      if (from === '' || !isUsed) continue;
      const [first, last] = [Number.parseInt(from, 16), Number.parseInt(to, 16)];
      const read = async (chunk: Buffer, at: number) =>
        (
          await handle
            .read(chunk, 0, Math.min(chunk.length, last - first - at), first + at)
            .catch(() => ({ bytesRead: 0 }))
        ).bytesRead;
      if (first < Number.MAX_SAFE_INTEGER && (await holds(text, read))) return true;
    }
    // Of a process that has ended nothing can be read.
    expect(await readFile(`/proc/${pid}/cmdline`, 'utf8')).not.toBe('');
    return false;
  } finally {
    await handle.close();
  }
}

async function holds(text: string, read: (chunk: Buffer, at: number) => Promise<number>): Promise<boolean> {
  const chunk = Buffer.alloc(4 * 1024 * 1024);
  for (let at = 0; ; at += chunk.length - text.length) {
    const count = await read(chunk, at);
    if (chunk.subarray(0, count).includes(text)) return true;
    if (count < chunk.length) return false;
  }
}
