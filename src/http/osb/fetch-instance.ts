import type { RequestHandler } from 'express';
import type { Instances } from '../../core/broker/instances.ts';
import { knowsNewerFields } from './headers.ts';
import { instanceReference } from './path-and-query.ts';
import { toMetadata } from './metadata.ts';

/** GET /v2/service_instances/:instance_id */
export function fetchInstance(instances: Instances): RequestHandler {
  return async (request, response) => {
    const { instance, host } = await instances.fetch(instanceReference(request, response));
    response.json({
      service_id: instance.serviceId,
      plan_id: instance.planId,
      parameters: instance.parameters,
      ...(knowsNewerFields(request) && {
        ...(host?.imageVersion !== undefined && { maintenance_info: { version: host.imageVersion } }),
        metadata: toMetadata(instance, host),
      }),
    });
  };
}
