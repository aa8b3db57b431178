import { describe, expect, it } from 'vitest';
import { builtInCatalog } from '../../src/core/catalog/built-in.ts';
import { allPlans, findPlan } from '../../src/core/catalog/lookup.ts';
import { CatalogError, loadCatalog } from '../../src/core/catalog/load.ts';

type Changed = Record<string, unknown>;
interface File {
  pool: Changed;
  offerings: Changed[];
}

/** The built-in catalog with one thing changed. */
function changed(change: (file: File) => void): unknown {
  const file: File = structuredClone(builtInCatalog);
  change(file);
  return file;
}
const plans = (file: File) => file.offerings[0]?.['plans'] as Changed[];

describe('the catalog', () => {
  it('catalog: the built-in one is valid', () => {
    const catalog = loadCatalog(builtInCatalog, 'built in');
    expect(allPlans(catalog).map(({ name }) => name)).toEqual(['small', 'medium', 'large']);
    const [offering] = catalog.offerings;
    expect(findPlan(catalog, offering?.id ?? '', 'unknown')).toBeUndefined();
    expect(offering?.metadata).toMatchObject({
      documentationUrl: expect.stringMatching(/^https:/) as string,
      imageUrl: expect.stringMatching(/^data:image\/svg/) as string,
    });
    for (const { metadata } of offering?.plans ?? []) {
      expect(metadata).toMatchObject({ bullets: expect.arrayContaining([expect.any(String)]) as string[] });
    }
  });

  it.each<[string, unknown, string]>([
    ['no offering', { offerings: [] }, '/offerings'],
    [
      'plans that want more parked hosts than there are',
      changed((file) => (file.pool = { size: 0 })),
      "pool.size is 0, but the plans' pools have 1 hosts together",
    ],
    [
      'a pool that shrinks in times of demand',
      changed((file) => (file.pool = { size: 3, max_size: 2 })),
      'pool.max_size is 2, but pool.size is 3',
    ],
    [
      'a pool that nothing fills',
      changed((file) => {
        for (const plan of plans(file)) Object.assign(plan, { template: 'never', pool: 0 });
      }),
      'there is a pool, but no plan is restored from the template',
    ],
    [
      'an unknown field',
      changed((file) => (file.offerings[0] = { ...file.offerings[0], colour: 1 })),
      'colour',
    ],
    [
      'a repeated id',
      changed((file) => (plans(file)[1] = { ...plans(file)[1], id: plans(file)[0]?.['id'] })),
      'more than once',
    ],
    [
      'a repeated plan name',
      changed((file) => (plans(file)[1] = { ...plans(file)[1], name: 'small' })),
      'two plans',
    ],
    [
      'a name with spaces',
      changed((file) => (plans(file)[0] = { ...plans(file)[0], name: 'very small' })),
      '/name',
    ],
    [
      'an empty description',
      changed((file) => (plans(file)[0] = { ...plans(file)[0], description: '' })),
      '/description',
    ],
    [
      'a documentationUrl that is not a web address',
      changed(
        (file) => (file.offerings[0] = { ...file.offerings[0], metadata: { documentationUrl: 'docs' } }),
      ),
      '/offerings/0/metadata/documentationUrl',
    ],
    [
      'bullets that are not a list',
      changed((file) => (plans(file)[0] = { ...plans(file)[0], metadata: { bullets: 'one' } })),
      '/offerings/0/plans/0/metadata/bullets',
    ],
    [
      'costs without a unit',
      changed(
        (file) => (plans(file)[0] = { ...plans(file)[0], metadata: { costs: [{ amount: { usd: 1 } }] } }),
      ),
      '/offerings/0/plans/0/metadata/costs/0',
    ],
    ['a plan without free', changed((file) => delete plans(file)[0]?.['free']), 'free'],
    [
      'too many tag characters',
      changed((file) => (file.offerings[0] = { ...file.offerings[0], tags: ['x'.repeat(3000)] })),
      'tags',
    ],
    [
      'a network that is none',
      changed((file) => (plans(file)[0] = { ...plans(file)[0], egress: ['10.0.0.0/99'] })),
      '/egress',
    ],
    ['something else than an object', 'text', 'object'],
  ])('catalog: is refused with %s, and the message names it', (_, file, words) => {
    const load = () => loadCatalog(file, 'catalog.yaml');
    expect(load).toThrow(CatalogError);
    expect(load).toThrow('catalog.yaml');
    expect(load).toThrow(words);
  });
});
