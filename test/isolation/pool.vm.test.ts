import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { firewallLines } from '../../src/hypervisors/qemu/network/firewall-facts.ts';
import { makeHosts, type TestHost, type TestHosts } from './support/hosts.ts';

const execute = promisify(execFile);

/** Its guest has run briefly and its engine has answered; nothing of that may stay open. */
describe('parked host', { timeout: 1_200_000 }, () => {
  let hosts: TestHosts;
  beforeAll(async () => {
    hosts = await makeHosts();
  }, 1_200_000);
  afterAll(() => hosts.close(), 300_000);

  const rules = async (host: TestHost) =>
    firewallLines(await host.inNamespace('nft', '--json', 'list', 'ruleset'));

  // Fails without `disconnect` in the driver's warm-up of parked hosts.
  it('parked host: is cut off from every network until it is connected for its tenant', async () => {
    const other = await hosts.make();
    const open = await rules(other);
    await hosts.driver.stop(other.spec.hostId);
    const closed = await rules(other);
    expect(closed).not.toEqual(open);

    const pooled = await hosts.pool();
    expect(await rules(pooled)).toEqual(closed);
    expect(await hosts.isPublished(pooled.spec)).toBe(false);

    // It is checked against its manifest like any host, before and after it is claimed.
    const { hostId } = pooled.spec;
    expect(await hosts.driver.verify(hostId)).toEqual([]);
    const limit = ['prlimit', '--pid', String(await pooled.pid())] as const;
    const asItsUser = ['--reuid', String(pooled.layout.uid), '--clear-groups'] as const;
    await execute('setpriv', [...asItsUser, ...limit, '--nofile=256:512']);
    expect((await hosts.driver.verify(hostId)).map(({ part }) => part)).toEqual(['rlimits']);
    await execute('setpriv', [...asItsUser, ...limit, '--nofile=512:512']);
    // Fails if a parked host has no recorded rules.
    await pooled.inNamespace('nft', 'insert rule inet berth input accept');
    expect((await hosts.driver.verify(hostId)).map(({ part }) => part)).toEqual(['firewall']);

    await hosts.bringUp(pooled.spec);
    expect(await hosts.driver.verify(hostId)).toEqual([]);
    expect(await rules(pooled)).not.toEqual(closed);
    expect(await hosts.isPublished(pooled.spec)).toBe(true);
  });
});
