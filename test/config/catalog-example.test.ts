import path from 'node:path';
import { expect, it } from 'vitest';
import { readCatalog } from '../../src/config/read-catalog.ts';
import { readSettings } from '../../src/config/settings.ts';
import { projectDirectory } from '../../src/lib/project-directory.ts';

it('catalog.example.yaml: is a valid catalog', async () => {
  const file = path.join(projectDirectory(), 'catalog.example.yaml');
  const { offerings } = await readCatalog(readSettings({ BERTH_CATALOG: file }));
  expect(offerings.map(({ name, plans }) => [name, plans.map((plan) => plan.name)])).toEqual([
    ['container-host', ['small', 'large']],
  ]);
});
