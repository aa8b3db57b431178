import { createHash } from 'node:crypto';
import type { RequestHandler } from 'express';
import { type Catalog, toOsbCatalog } from '../../core/catalog/catalog.ts';

/** GET /v2/catalog: the same bytes until a new image is installed; a platform that has them gets 304 (osb-notes 11). */
export function getCatalog(
  catalog: Catalog,
  simulated: boolean,
  imageVersion: () => string | undefined,
): RequestHandler {
  const write = (version: string | undefined) => {
    const body = JSON.stringify(toOsbCatalog(catalog, simulated, version));
    const etag = `"${createHash('sha256').update(body).digest('hex').slice(0, 32)}"`;
    return { version, body, etag };
  };
  let written = write(imageVersion());
  return (request, response) => {
    if (written.version !== imageVersion()) written = write(imageVersion());
    response.set({ ETag: written.etag, 'Cache-Control': 'no-cache' });
    if (request.fresh) {
      response.status(304).end();
      return;
    }
    response.type('application/json').send(written.body);
  };
}
