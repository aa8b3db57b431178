import { readFile } from 'node:fs/promises';
import { parse } from 'yaml';
import type { Settings } from './settings.ts';
import { builtInCatalog } from '../core/catalog/built-in.ts';
import type { Catalog } from '../core/catalog/catalog.ts';
import { CatalogError, loadCatalog } from '../core/catalog/load.ts';
import { errorMessage } from '../lib/error-message.ts';

/**
 * The catalog that `BERTH_CATALOG` names, or the built-in one.
 * @throws CatalogError that names the file and every broken rule.
 */
export async function readCatalog(settings: Settings): Promise<Catalog> {
  const file = settings.catalogFile;
  if (file === undefined) return loadCatalog(builtInCatalog, 'built in');
  let content: unknown;
  try {
    content = parse(await readFile(file, 'utf8'), { maxAliasCount: 100 });
  } catch (cause) {
    const reason = errorMessage(cause);
    throw new CatalogError(`The catalog (BERTH_CATALOG, ${file}) is not YAML: ${reason}`, { cause });
  }
  return loadCatalog(content, `BERTH_CATALOG, ${file}`);
}
