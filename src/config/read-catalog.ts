import { readFile } from 'node:fs/promises';
import { parse } from 'yaml';
import type { Settings } from './settings.ts';
import { builtInCatalog } from '../core/catalog/built-in.ts';
import type { Catalog } from '../core/catalog/catalog.ts';
import { CatalogError, loadCatalog } from '../core/catalog/load.ts';
import { errorMessage } from '../lib/error-message.ts';

/**
 * The catalog that `BERTH_CATALOG` names, or the built-in one.
 * @throws CatalogError that names the file and every broken rule, or every plan that is larger than a host can be.
 */
export async function readCatalog(settings: Settings): Promise<Catalog> {
  const file = settings.catalogFile;
  if (file === undefined) return checked(loadCatalog(builtInCatalog, 'built in'), settings);
  let content: unknown;
  try {
    content = parse(await readFile(file, 'utf8'), { maxAliasCount: 100 });
  } catch (cause) {
    const reason = errorMessage(cause);
    throw new CatalogError(`The catalog (BERTH_CATALOG, ${file}) is not YAML: ${reason}`, { cause });
  }
  return checked(loadCatalog(content, `BERTH_CATALOG, ${file}`), settings);
}

/** @throws CatalogError if a plan is larger than a host can be, with the setting to change. */
function checked(catalog: Catalog, { largestHost }: Settings): Catalog {
  const problems = catalog.offerings
    .flatMap(({ plans }) => plans)
    .flatMap(({ name, shape }) => [
      ...(shape.vcpus > largestHost.vcpus
        ? [`plan ${name} has ${shape.vcpus} vCPUs: set BERTH_LARGEST_HOST_VCPUS to at least that`]
        : []),
      ...(shape.memoryMib > largestHost.memoryMib
        ? [
            `plan ${name} has ${shape.memoryMib} MiB of memory: set BERTH_LARGEST_HOST_MEMORY_MIB to at least that`,
          ]
        : []),
    ]);
  if (problems.length === 0) return catalog;
  throw new CatalogError(`The catalog has plans that are larger than a host can be: ${problems.join('; ')}.`);
}
