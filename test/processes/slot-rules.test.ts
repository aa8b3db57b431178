import { expect, it } from 'vitest';
import { readSettings, SettingsError } from '../../src/config/settings.ts';
import { loadCatalog } from '../../src/core/catalog/load.ts';
import { slotRules } from '../../src/processes/slot-rules.ts';
import { catalogFile } from '../support/broker.ts';

const catalog = loadCatalog(catalogFile, 'test');
const rules = (environment: Record<string, string> = {}) => slotRules(readSettings(environment), catalog);

it('slot rules: there are as many slots as blocks of ports', () => {
  expect(rules()).toEqual({ first: 20_000, size: 20, count: 500, restSeconds: 300 });
});

// Fails without the number of address pairs: the 128th create failed in `prepare`.
it('slot rules: there are at most as many slots as the host network has pairs of addresses', () => {
  expect(rules({ BERTH_HOST_NETWORK: '10.209.0.0/24' }).count).toBe(127);
});

it('slot rules: a range of ports without room for a block is refused, naming the setting', () => {
  expect(() => rules({ BERTH_PUBLISHED_PORTS: '20000-20009' })).toThrow(SettingsError);
  expect(() => rules({ BERTH_PUBLISHED_PORTS: '20000-20009' })).toThrow(/BERTH_PUBLISHED_PORTS.*widen/);
});
