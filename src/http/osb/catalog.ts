import { createHash } from 'node:crypto';
import type { RequestHandler } from 'express';
import { type Catalog, toOsbCatalog } from '../../core/catalog/catalog.ts';

/** GET /v2/catalog: always the same bytes, so a platform that has them is answered 304 (osb-notes 11). */
export function getCatalog(catalog: Catalog, simulated: boolean): RequestHandler {
  const body = JSON.stringify(toOsbCatalog(catalog, simulated));
  const etag = `"${createHash('sha256').update(body).digest('hex').slice(0, 32)}"`;
  return (request, response) => {
    // It holds no secret, and may be kept as long as it is asked after each time.
    response.set({ ETag: etag, 'Cache-Control': 'no-cache' });
    if (request.fresh) {
      response.status(304).end();
      return;
    }
    response.type('application/json').send(body);
  };
}
