import { expect, it } from 'vitest';
import { tenantName } from '../../src/core/tenant-name.ts';

const names = { organizationName: 'acme', spaceName: 'dev', namespace: undefined };
const none = { organizationName: undefined, spaceName: undefined, namespace: undefined };

it.each([
  ['["org","o-1"]', names, 'acme'],
  ['["space","o-1","s-1"]', names, 'acme/dev'],
  ['["instance","i-1"]', names, 'acme/dev'],
  ['["space","o-1","s-1"]', { ...names, spaceName: undefined }, undefined],
  ['["org","o-1"]', none, undefined],
  ['["kubernetes","c-1","shop"]', { ...none, namespace: 'shop' }, 'shop'],
  ['["instance","i-1"]', { ...none, namespace: 'shop' }, 'shop'],
])('tenantName: of %s with names %j is %j', (key, given, expected) => {
  expect(tenantName(key, given)).toBe(expected);
});
