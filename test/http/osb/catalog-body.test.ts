import { expect, it } from 'vitest';
import { builtInCatalog } from '../../../src/core/catalog/built-in.ts';
import { loadCatalog } from '../../../src/core/catalog/load.ts';
import { toOsbCatalog } from '../../../src/http/osb/catalog-body.ts';

const shownAs = (simulated: boolean) =>
  toOsbCatalog(loadCatalog(builtInCatalog, 'built in'), {
    simulated,
    imageVersion: '1.0.0',
    newerFields: true,
  });

it('catalog body: says in every description that hosts are simulated, if they are', () => {
  const shown = JSON.stringify(shownAs(true));
  expect(shown.match(/SIMULATED/g)).toHaveLength(4);
  expect(JSON.stringify(shownAs(false))).not.toContain('SIMULATED');
});
