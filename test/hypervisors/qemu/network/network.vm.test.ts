import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  connection,
  firstPort,
  guest,
  inHost,
  layout,
  makeNamespaceGuest,
  network,
  node,
  one,
  other,
  outside,
  ports,
  removeNamespaceGuest,
  run,
  site,
  to,
} from '../../../support/namespace-guest.ts';

/**
 * The subject is what happens to open connections when rules change.
 *
 * Each test fails with `ct state established,related accept` in host-rules.ts: open connections continued.
 */
beforeAll(makeNamespaceGuest, 60_000);
afterAll(removeNamespaceGuest);

describe('egress rules', () => {
  it('egress rules: a change keeps open connections that are still allowed and ends all others', async () => {
    await network.connect(layout, ports(0), to(`${one}/32`, `${other}/32`), undefined);
    const stays = connection(guest, one, 7);
    const goes = connection(guest, other, 7);
    expect([await stays.works(), await goes.works()]).toEqual([true, true]);
    // The same rules again, as at a worker's start: no connection ends.
    await network.connect(layout, ports(0), to(`${one}/32`, `${other}/32`), ports(0));
    expect([await stays.works(), await goes.works()]).toEqual([true, true]);

    await network.connect(layout, ports(0), to(`${one}/32`), ports(0));
    expect([await stays.works(), await goes.works()]).toEqual([true, false]);
    expect(await connection(guest, other, 7).works()).toBe(false);
    expect(await connection(guest, one, 7).works()).toBe(true);

    await network.connect(layout, ports(0), { kind: 'none' }, ports(0));
    expect(await stays.works()).toBe(false);
  });
});

describe('published ports', () => {
  it('published ports: adding ports keeps open connections, removing ports ends theirs', async () => {
    await network.connect(layout, ports(1), { kind: 'none' }, undefined);
    const first = connection(outside, node, firstPort);
    expect(await first.works()).toBe(true);
    expect(await connection(outside, node, firstPort + 2).works()).toBe(false);

    await network.connect(layout, ports(4), { kind: 'none' }, ports(1));
    const third = connection(outside, node, firstPort + 2);
    expect([await first.works(), await third.works()]).toEqual([true, true]);

    // Without knowing which ports were published, as after a kill half-way.
    await network.connect(layout, ports(2), { kind: 'none' }, undefined);
    expect([await first.works(), await third.works()]).toEqual([true, false]);
    expect(await connection(outside, node, firstPort + 2).works()).toBe(false);

    await network.connect(layout, ports(0), { kind: 'none' }, ports(2));
    expect(await first.works()).toBe(false);
    const { 'node firewall': left } = await network.facts(layout);
    expect(left.filter((line) => line.startsWith('published'))).toEqual([]);
  });

  it('published ports: lead nowhere after the host is disconnected', async () => {
    await network.connect(layout, ports(3), { kind: 'none' }, undefined);
    const open = connection(outside, node, firstPort);
    expect(await open.works()).toBe(true);
    await network.disconnect(layout, undefined);
    expect(await open.works()).toBe(false);
  });
});

/** Each test fails with the former rules: foreign rules stayed and were recorded as ours. */
describe('foreign rules', () => {
  const table = `berth_${site}`;
  const nft = (...args: string[]) => run('nft', args);
  const listing = async () =>
    (await nft('list', 'table', 'inet', table)).stdout + (await inHost('list', 'ruleset')).stdout;

  it("foreign rules: are removed from a host's namespace when its rules are applied, in separate tables too", async () => {
    await inHost('add', 'table', 'inet', 'intruder');
    await inHost('insert', 'rule', 'inet', 'berth', 'output', 'accept');
    await network.connect(layout, ports(0), { kind: 'none' }, undefined);
    const { firewall } = await network.facts(layout);
    expect(await listing()).not.toContain('intruder');
    await network.connect(layout, ports(0), { kind: 'none' }, ports(0));
    expect((await network.facts(layout)).firewall).toEqual(firewall);
    expect(firewall.filter((line) => line.includes('"accept":null')).join('\n')).not.toMatch(
      /"chain":"output","expr":\[\{"accept"/,
    );
  });

  it("foreign rules: are removed from the node's table when it is applied and when it is repaired, and reported", async () => {
    await network.connect(layout, ports(1), { kind: 'none' }, undefined);
    const before = await network.facts(layout);
    await nft('add', 'chain', 'inet', table, 'intruder', '{ type filter hook forward priority -10; }');
    await nft('add', 'rule', 'inet', table, 'intruder', 'accept');
    expect(await network.open()).toEqual(['intruder']);
    expect(await network.facts(layout)).toEqual(before);

    await nft('insert', 'rule', 'inet', table, 'forward', 'ip', 'daddr', '192.0.2.1', 'accept');
    expect(await listing()).toContain('192.0.2.1');
    await network.repairNode();
    expect(network.takeRepairs()).toEqual([expect.stringMatching(/^new: rule .*192\.0\.2\.1/)]);
    expect(await listing()).not.toContain('192.0.2.1');
    expect(await network.facts(layout)).toEqual(before);
    await network.repairNode();
    expect(network.takeRepairs()).toEqual([]);
    await network.disconnect(layout, ports(1));
  });
});
