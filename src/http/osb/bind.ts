import type { RequestHandler } from 'express';
import { platformOf } from '../auth.ts';
import type { Bindings, BindingView } from '../../core/broker/bindings.ts';
import type { JsonObject } from '../../core/model.ts';
import { minorVersion } from './headers.ts';
import { pathId, readBindBody } from './input.ts';

/** PUT /v2/service_instances/:instance_id/service_bindings/:binding_id; synchronous in any case. */
export function bind(bindings: Bindings): RequestHandler {
  return async (request, response) => {
    const body = readBindBody(request);
    const appGuid = [body.bind_resource?.app_guid, body.app_guid].find(
      (guid) => typeof guid === 'string' && guid !== '',
    );
    const view = await bindings.bind({
      platformId: platformOf(response).id,
      instanceId: pathId(request, 'instance_id'),
      bindingId: pathId(request, 'binding_id'),
      serviceId: body.service_id,
      planId: body.plan_id,
      appGuid: appGuid ?? undefined,
      parameters: body.parameters ?? {},
    });
    response.status(view.isNew ? 201 : 200).json(toBody(view, minorVersion(request)));
  };
}

/** Fields newer than 2.14 go to platforms only that know them: older clients fail on them (osb-notes 1). */
export function toBody(view: BindingView, minor: number): JsonObject {
  const { credentials, endpoints, expiresAt, renewBefore } = view;
  if (minor < 15) return { credentials };
  return { credentials, endpoints, metadata: { expires_at: expiresAt, renew_before: renewBefore } };
}
