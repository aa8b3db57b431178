import { createHash } from 'node:crypto';
import type { RequestHandler } from 'express';
import type { Catalog } from '../../core/catalog/catalog.ts';
import { toOsbCatalog } from './catalog-body.ts';
import { knowsNewerFields } from './headers.ts';

/** GET /v2/catalog: the body changes only with the installed image; 304 if the platform has it (docs/osb.md 11). */
export function getCatalog(
  catalog: Catalog,
  simulated: boolean,
  imageVersion: () => string | undefined,
): RequestHandler {
  const write = (version: string | undefined, newerFields: boolean) => {
    const body = JSON.stringify(toOsbCatalog(catalog, { simulated, imageVersion: version, newerFields }));
    return { body, etag: `"${createHash('sha256').update(body).digest('hex').slice(0, 32)}"` };
  };
  const writeAll = (version: string | undefined) => ({
    version,
    newer: write(version, true),
    older: write(version, false),
  });
  let all = writeAll(imageVersion());
  return (request, response) => {
    if (all.version !== imageVersion()) all = writeAll(imageVersion());
    const written = knowsNewerFields(request) ? all.newer : all.older;
    response.set({ ETag: written.etag, 'Cache-Control': 'no-cache', Vary: 'X-Broker-API-Version' });
    // Express compares the ETag with If-None-Match and then omits the body.
    response.type('application/json').send(written.body);
  };
}
