import type { RequestHandler } from 'express';
import type { Bindings } from '../../core/broker/bindings.ts';
import { bindingBody } from './binding-body.ts';
import { knowsNewerFields } from './headers.ts';
import { instanceReference, pathId } from './path-and-query.ts';

/** GET /v2/service_instances/:instance_id/service_bindings/:binding_id: credentials included (docs/osb.md 36). */
export function fetchBinding(bindings: Bindings): RequestHandler {
  return async (request, response) => {
    const view = await bindings.fetch({
      ...instanceReference(request, response),
      bindingId: pathId(request, 'binding_id'),
    });
    response.json(bindingBody(view, knowsNewerFields(request)));
  };
}
