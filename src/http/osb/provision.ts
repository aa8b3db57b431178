import type { RequestHandler } from 'express';
import { platformOf } from '../auth.ts';
import type { Instances } from '../../core/broker/instances.ts';
import { knowsNewerFields } from './headers.ts';
import { nonEmptyText, readProvisionBody } from './bodies.ts';
import { acceptsIncomplete, pathId } from './path-and-query.ts';
import { toMetadata } from './metadata.ts';

/** PUT /v2/service_instances/:instance_id */
export function provision(instances: Instances): RequestHandler {
  return async (request, response) => {
    const body = readProvisionBody(request);
    const outcome = await instances.provision({
      platformId: platformOf(response).id,
      instanceId: pathId(request, 'instance_id'),
      serviceId: body.service_id,
      planId: body.plan_id,
      organizationGuid: body.organization_guid,
      spaceGuid: body.space_guid,
      context: body.context ?? {},
      parameters: body.parameters ?? {},
      maintenanceVersion: nonEmptyText(body.maintenance_info?.version),
      acceptsIncomplete: acceptsIncomplete(request),
    });
    const metadata = knowsNewerFields(request) && { metadata: toMetadata(outcome.instance, outcome.host) };
    switch (outcome.kind) {
      case 'unchanged':
        response.status(200).json({ ...metadata });
        return;
      case 'done':
        response.status(201).json({ ...metadata });
        return;
      case 'accepted':
        response.status(202).json({ operation: outcome.operationId, ...metadata });
    }
  };
}
