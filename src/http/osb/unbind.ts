import type { RequestHandler } from 'express';
import type { Bindings } from '../../core/broker/bindings.ts';
import { instanceReference, pathId, requirePlatformIds } from './path-and-query.ts';

/** DELETE /v2/service_instances/:instance_id/service_bindings/:binding_id: has taken effect when it is answered. */
export function unbind(bindings: Bindings): RequestHandler {
  return async (request, response) => {
    const reference = instanceReference(request, response);
    requirePlatformIds(reference);
    await bindings.unbind({ ...reference, bindingId: pathId(request, 'binding_id') });
    response.json({});
  };
}
