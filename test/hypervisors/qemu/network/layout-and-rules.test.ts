import { execFile } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { layoutOf } from '../../../../src/hypervisors/qemu/layout.ts';
import { addressPairs } from '../../../../src/lib/ipv4.ts';
import { closedHostRules, openHostRules } from '../../../../src/hypervisors/qemu/network/host-rules.ts';
import { nodeRules } from '../../../../src/hypervisors/qemu/network/node-rules.ts';
import { hasVmTools } from '../../../support/has-vm-tools.ts';

const naming = {
  site: 'abcd',
  stateDirectory: '/var/lib/berth',
  runDirectory: '/run/berth-abcd',
  hostNetwork: '10.209.0.0/16',
  firstUid: 300_016,
};
const layout = (slot: number) => layoutOf(naming, 'id', slot);
const network = {
  hostNetwork: '10.209.0.0/16',
  localNetworks: ['192.175.48.7/24', '10.1.0.1/16'],
  denied: ['192.175.48.7/32', '192.52.193.0/24'],
  publishedAt: ['192.175.48.7', '192.0.2.1'],
  dnsServers: ['10.0.0.53'],
};
const ports = { first: 20_010, count: 10 };
const limits = { connections: 4096, bandwidthMbit: 1000 };

describe('host layout', () => {
  it('host layout: no two slots share a path, name, address or uid', () => {
    const all = Array.from({ length: 300 }, (_, slot) => layout(slot));
    for (const key of ['uid', 'netns', 'veth', 'nodeAddress', 'hostAddress'] as const) {
      expect(new Set(all.map((one) => one[key])).size).toBe(300);
    }
    expect(new Set(all.flatMap((one) => [one.nodeAddress, one.hostAddress])).size).toBe(600);
    // IFNAMSIZ: 15 characters and a NUL.
    expect(layout(32_766).veth.length).toBeLessThanOrEqual(15);
  });

  it('host layout: addresses are inside the host network', () => {
    expect(layout(0)).toMatchObject({ nodeAddress: '10.209.0.0', hostAddress: '10.209.0.1' });
    expect(layout(addressPairs(naming.hostNetwork))).toMatchObject({ hostAddress: '10.209.255.255' });
    expect(addressPairs('10.0.0.0/24')).toBe(127);
  });
});

/** Checks the syntax with nft(8) itself, without applying anything. */
const check = (rules: string) =>
  new Promise<string>((resolve) => {
    const child = execFile('nft', ['--check', '--file', '-'], (error, _, complaint) => {
      resolve(error === null ? 'understood' : complaint);
    });
    child.stdin?.end(rules);
  });

describe.skipIf(!hasVmTools)('the rules', () => {
  it('node rules: nft accepts them', async () => {
    expect(
      await check(
        nodeRules({ site: 'abcd', hostNetwork: '10.209.0.0/16', gatewayUid: 300_001, hostLimits: limits }),
      ),
    ).toBe('understood');
  });

  it.each([
    { kind: 'internet' as const },
    { kind: 'none' as const },
    { kind: 'networks' as const, cidrs: ['10.0.0.0/8', '10.1.0.0/16', '203.0.113.0/24', '203.0.113.0/24'] },
  ])('of a host with egress $kind are understood', async (egress) => {
    const rules = openHostRules(layout(3), ports, egress, network, limits).replace(
      'device "tap0"',
      'device "lo"',
    );
    expect(await check(rules)).toBe('understood');
    expect(await check(closedHostRules(limits).replace('device "tap0"', 'device "lo"'))).toBe('understood');
  });
});

describe('egress', () => {
  const forward = (egress: Parameters<typeof openHostRules>[2]) =>
    openHostRules(layout(3), ports, egress, network, limits).split('chain egress')[1] ?? '';

  it("egress internet: excludes private networks and the node's networks", () => {
    const rules = forward({ kind: 'internet' });
    for (const refused of [
      '169.254.0.0/16',
      '192.168.0.0/16',
      '10.0.0.0/8',
      '192.175.48.0/24',
      '192.52.193.0/24',
    ]) {
      expect(rules).toContain(refused);
    }
    expect(rules.indexOf('return')).toBeLessThan(rules.lastIndexOf('accept'));
  });

  it("egress none: accepts nothing but the host's own published ports, DNS included", () => {
    const own =
      'ct original ip daddr { 192.175.48.7, 192.0.2.1 } meta l4proto { tcp, udp } ct original proto-dst 20010-20019 ct status dnat accept';
    expect(forward({ kind: 'none' })).toContain(own);
    expect(forward({ kind: 'none' }).replace(own, '')).not.toContain('accept');
    const noPorts = { first: 20_010, count: 0 };
    expect(
      openHostRules(layout(3), noPorts, { kind: 'none' }, network, limits).split('chain egress')[1],
    ).not.toContain('accept');
  });

  it('egress networks: never reaches what the operator denies, the node itself or cloud metadata', () => {
    const [closed = ''] = forward({ kind: 'networks', cidrs: ['0.0.0.0/0'] }).split('0.0.0.0/0 } accept');
    for (const refused of ['192.52.193.0/24', '192.175.48.7/32', '168.63.129.16/32']) {
      expect(closed).toContain(refused);
    }
    expect(closed).not.toContain('192.175.48.0/24');
  });

  it('egress networks: no text that nft could take for a host name gets into the rules', () => {
    // Fails without the check in networkSet: nft asked DNS for the name.
    expect(forward({ kind: 'networks', cidrs: ['08.8.8.010/32'] })).toContain('{ 8.8.8.10/32 }');
    for (const cidr of [
      'example.com',
      'example.com/32',
      '8.8.8.8',
      '8.8.8/24',
      '8.8.8.8/33',
      '8.8.8.256/32',
      '',
    ]) {
      expect(() => forward({ kind: 'networks', cidrs: [cidr] })).toThrow('not an IPv4 network');
    }
  });

  it('egress networks: never reaches other hosts or link-local addresses', () => {
    const rules = forward({ kind: 'networks', cidrs: ['0.0.0.0/0'] });
    expect(rules.indexOf('169.254.0.0/16')).toBeLessThan(rules.indexOf('0.0.0.0/0 } accept'));
    expect(rules.indexOf('10.209.0.0/16')).toBeLessThan(rules.indexOf('0.0.0.0/0 } accept'));
  });
});
