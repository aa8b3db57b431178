import { expect, it } from 'vitest';
import type { Plan } from '../../src/core/catalog/catalog.ts';
import { loadCatalog } from '../../src/core/catalog/load.ts';
import { allPlans } from '../../src/core/catalog/lookup.ts';
import { poolTargets } from '../../src/core/catalog/pool-targets.ts';

const entry = (name: string, memory: number, more: object = {}) => ({
  ...{ id: name, name, description: name, free: true },
  host: { vcpus: 1, memory_mib: memory, disk_gib: 4, published_ports: 1 },
  ...more,
});
const plansOf = (...entries: object[]): readonly Plan[] =>
  allPlans(
    loadCatalog(
      { pool: { size: 50 }, offerings: [{ id: 'o', name: 'o', description: 'o', plans: entries }] },
      'test',
    ),
  );
const plans = plansOf(entry('large', 4096), entry('small', 768), entry('medium', 2048, { pool: 1 }));
const targets = (created: Record<string, number>, size = 4, maxSize = 8) =>
  Object.fromEntries(poolTargets(plans, { size, maxSize }, new Map(Object.entries(created))));

it('poolTargets: without demand, what plans ask for and the rest of the smallest size', () => {
  expect(targets({})).toEqual({ large: 0, small: 3, medium: 1 });
  expect(targets({ removed: 9 })).toEqual({ large: 0, small: 3, medium: 1 });
  expect(targets({}, 0, 0)).toMatchObject({ large: 0, small: 0 });
});

it('poolTargets: sizes in demand are prepared, the one most in demand first, and the pool grows to its limit', () => {
  expect(targets({ large: 1 })).toEqual({ large: 1, small: 2, medium: 1 });
  expect(targets({ large: 2, small: 3 })).toEqual({ large: 1, small: 3, medium: 1 });
  expect(targets({ large: 5, small: 9, medium: 2 })).toEqual({ large: 0, small: 7, medium: 1 });
  expect(targets({ large: 90, medium: 9 })).toEqual({ large: 5, small: 2, medium: 1 });
});
