import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { firewallLines } from '../../src/hypervisors/qemu/network/firewall-facts.ts';
import { makeHosts, type TestHost, type TestHosts } from './support/hosts.ts';

const execute = promisify(execFile);

/** Its guest has run for a moment, and its engine has answered: nothing of that may be left open. */
describe('a host in the pool', { timeout: 1_200_000 }, () => {
  let hosts: TestHosts;
  beforeAll(async () => {
    hosts = await makeHosts();
  }, 1_200_000);
  afterAll(() => hosts.close(), 300_000);

  const rules = async (host: TestHost) =>
    firewallLines(await host.inNamespace('nft', '--json', 'list', 'ruleset'));

  // Seen to fail without `disconnect` in the driver's `warm`.
  it('is as cut off as a host that is stopped, until it is connected for its tenant', async () => {
    const other = await hosts.make();
    const open = await rules(other);
    await hosts.driver.stop(other.spec.hostId);
    const closed = await rules(other);
    expect(closed).not.toEqual(open);

    const pooled = await hosts.pool();
    expect(await rules(pooled)).toEqual(closed);
    expect(await hosts.isPublished(pooled.spec)).toBe(false);

    // It is held against its manifest like any other: before and after it is somebody's.
    const { hostId } = pooled.spec;
    expect(await hosts.driver.verify(hostId)).toEqual([]);
    const limit = ['prlimit', '--pid', String(await pooled.pid())] as const;
    const asItsUser = ['--reuid', String(pooled.place.uid), '--clear-groups'] as const;
    await execute('setpriv', [...asItsUser, ...limit, '--nofile=256:512']);
    expect((await hosts.driver.verify(hostId)).map(({ part }) => part)).toEqual(['rlimits']);
    await execute('setpriv', [...asItsUser, ...limit, '--nofile=512:512']);
    // Seen to fail where a pooled host had no rules on record.
    await pooled.inNamespace('nft', 'insert rule inet berth input accept');
    expect((await hosts.driver.verify(hostId)).map(({ part }) => part)).toEqual(['firewall']);

    await hosts.bringUp(pooled.spec);
    expect(await hosts.driver.verify(hostId)).toEqual([]);
    expect(await rules(pooled)).not.toEqual(closed);
    expect(await hosts.isPublished(pooled.spec)).toBe(true);
  });
});
