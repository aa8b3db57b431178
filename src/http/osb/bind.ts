import type { RequestHandler } from 'express';
import { platformOf } from '../auth.ts';
import type { Bindings } from '../../core/broker/bindings.ts';
import { bindingBody } from './binding-body.ts';
import { knowsNewerFields } from './headers.ts';
import { nonEmptyText, readBindBody } from './bodies.ts';
import { pathId } from './path-and-query.ts';

/** PUT /v2/service_instances/:instance_id/service_bindings/:binding_id: always synchronous. */
export function bind(bindings: Bindings): RequestHandler {
  return async (request, response) => {
    const body = readBindBody(request);
    const view = await bindings.bind({
      platformId: platformOf(response).id,
      instanceId: pathId(request, 'instance_id'),
      bindingId: pathId(request, 'binding_id'),
      serviceId: nonEmptyText(body.service_id),
      planId: nonEmptyText(body.plan_id),
      appGuid: nonEmptyText(body.bind_resource?.app_guid) ?? nonEmptyText(body.app_guid),
      parameters: body.parameters ?? undefined,
      binder: { context: body.context ?? {}, spaceGuid: nonEmptyText(body.bind_resource?.space_guid) },
      predecessor: nonEmptyText(body.predecessor_binding_id),
    });
    response.status(view.isNew ? 201 : 200).json(bindingBody(view, knowsNewerFields(request)));
  };
}
