import { describe, expect, it } from 'vitest';
import { createParameterRules } from '../../src/core/broker/parameter-rules.ts';
import { requestedSettings } from '../../src/core/broker/requested-settings.ts';
import type { Plan } from '../../src/core/catalog/catalog.ts';
import { builtInCatalog } from '../../src/core/catalog/built-in.ts';
import { loadCatalog } from '../../src/core/catalog/load.ts';
import { tenantKey } from '../../src/core/tenant-key.ts';

const plan = (egress?: unknown): Plan => {
  const [offering] = builtInCatalog.offerings;
  const [first] = offering?.plans ?? [];
  const catalog = loadCatalog(
    { offerings: [{ ...offering, plans: [{ ...first, ...(egress !== undefined && { egress }) }] }] },
    'test',
  );
  const loaded = catalog.offerings[0]?.plans[0];
  if (loaded === undefined) throw new Error('no plan');
  createParameterRules(catalog);
  return loaded;
};
const egress = (of: Plan, wanted?: unknown) =>
  requestedSettings(of, wanted === undefined ? {} : { egress: wanted }).egress;

describe('egress', () => {
  it('egress: is what the plan allows, or less if the parameter says so', () => {
    expect(egress(plan())).toEqual({ kind: 'internet' });
    expect(egress(plan(), 'none')).toEqual({ kind: 'none' });
    expect(egress(plan(), ['192.52.193.0/24'])).toEqual({
      kind: 'networks',
      cidrs: ['192.52.193.0/24'],
      publicOnly: true,
    });
    expect(egress(plan(['10.1.0.0/16']), ['10.1.2.0/24'])).toEqual({
      kind: 'networks',
      cidrs: ['10.1.2.0/24'],
    });
  });

  it('egress: is never more than the plan allows', () => {
    for (const network of [
      '10.0.0.0/24',
      '169.254.169.254/32',
      '0.0.0.0/0',
      '172.16.0.0/30',
      '192.0.0.0/8',
      // Fails without all of RFC 6890 and the clouds' metadata.
      ...[
        '192.0.0.0/24',
        '192.0.2.0/24',
        '192.88.99.0/24',
        '198.18.0.0/15',
        '198.51.100.0/24',
        '203.0.113.0/24',
      ],
      ...['168.63.129.16/32', '100.100.100.200/32', '240.0.0.0/4', '255.255.255.255/32'],
    ]) {
      expect(() => egress(plan(), ['192.52.193.0/24', network])).toThrow(
        `parameters/egress/1 (${network}) has addresses of`,
      );
    }
    expect(() => egress(plan(['10.1.0.0/16']), ['10.0.0.0/15'])).toThrow(
      'none of the networks that the plan allows',
    );
  });
});

it.each([
  [{ egress: 'all' }, 'parameters/egress'],
  [{ egress: [] }, 'parameters/egress'],
  [{ egress: ['10.0.0.1'] }, 'parameters/egress/0'],
  // Fails with a pattern that allows leading zeros: nft took the first for a host name.
  [{ egress: ['08.8.8.8/32'] }, 'parameters/egress/0'],
  [{ egress: ['8.8.8.010/32'] }, 'parameters/egress/0'],
  [{ egress: ['8.8.8.8/08'] }, 'parameters/egress/0'],
  [{ egress: ['example.com/32'] }, 'parameters/egress/0'],
  [{ published_ports: 11 }, 'parameters/published_ports must be <= 10'],
  [{ published_ports: 1.5 }, 'parameters/published_ports must be integer'],
  [{ published_ports: null }, 'parameters/published_ports'],
  [{ colour: 1 }, '"colour"'],
])('parameters: %j are refused with path and rule', (parameters, words) => {
  const catalog = loadCatalog(builtInCatalog, 'test');
  const small = catalog.offerings[0]?.plans[0];
  if (small === undefined) throw new Error('no plan');
  expect(() => {
    createParameterRules(catalog).checkProvision(small, parameters);
  }).toThrow(words);
});

describe('a tenant', () => {
  const request = { instanceId: 'i-1', organizationGuid: 'o-1', spaceGuid: 's-1', context: {} };
  const kubernetes = { platform: 'kubernetes', clusterid: 'c', namespace: 'n' };

  it('tenant: is an org, a space or an instance, as the offering says', () => {
    const key = (cut: 'org' | 'space' | 'instance', more = {}) => tenantKey(cut, { ...request, ...more });
    expect(key('org')).toBe(key('org', { spaceGuid: 's-2', instanceId: 'i-2' }));
    expect(key('space')).toBe(key('space', { instanceId: 'i-2' }));
    expect(key('space')).not.toBe(key('space', { spaceGuid: 's-2' }));
    expect(key('space')).not.toBe(key('space', { organizationGuid: 'o-2' }));
    expect(key('instance')).not.toBe(key('instance', { instanceId: 'i-2' }));
    expect(key('org')).toBe(key('org', { context: { organization_guid: 'o-1' }, organizationGuid: 'x' }));
    expect(key('org', { context: { ...kubernetes } })).not.toBe(key('org'));
    expect(key('org', { context: kubernetes })).not.toBe(
      key('org', { context: { ...kubernetes, namespace: 'm' } }),
    );
  });

  it('tenant: falls back to the top-level fields on Kubernetes, and differs from every tenant of Cloud Foundry', () => {
    const key = (context: object, more = {}) =>
      tenantKey('org', { ...request, ...more, context: { platform: 'kubernetes', ...context } });
    expect(key({ clusterid: '', namespace: 'n' })).toBe(key({ clusterid: 'o-1', namespace: 'n' }));
    expect(key({ clusterid: 'c' })).toBe(key({ clusterid: 'c', namespace: 's-1' }));
    expect(key({ clusterid: 'c' })).not.toBe(key({ clusterid: 'c' }, { spaceGuid: 's-2' }));
    expect(key({})).not.toBe(tenantKey('org', request));
  });

  it('tenant: can not be forged by an id that contains the separator', () => {
    const key = (organizationGuid: string, spaceGuid: string) =>
      tenantKey('space', { ...request, organizationGuid, spaceGuid });
    expect(key('a","b', 'c')).not.toBe(key('a', 'b","c'));
  });
});
