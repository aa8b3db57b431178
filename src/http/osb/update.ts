import type { RequestHandler } from 'express';
import type { Instances } from '../../core/broker/instances.ts';
import { platformOf } from '../auth.ts';
import { knowsNewerFields } from './headers.ts';
import { nonEmptyObject, nonEmptyText, readUpdateBody } from './bodies.ts';
import { acceptsIncomplete, pathId } from './path-and-query.ts';
import { toMetadata } from './metadata.ts';

/** PATCH /v2/service_instances/:instance_id. `previous_values` is not trusted (docs/osb.md 28). */
export function update(instances: Instances): RequestHandler {
  return async (request, response) => {
    const body = readUpdateBody(request);
    const outcome = await instances.update({
      platformId: platformOf(response).id,
      instanceId: pathId(request, 'instance_id'),
      serviceId: body.service_id,
      planId: nonEmptyText(body.plan_id),
      parameters: body.parameters ?? undefined,
      context: nonEmptyObject(body.context),
      maintenanceVersion: nonEmptyText(body.maintenance_info?.version),
      acceptsIncomplete: acceptsIncomplete(request),
    });
    // Without an effect, the answer is exactly {} (docs/osb.md 27).
    if (outcome.kind === 'unchanged') {
      response.json({});
      return;
    }
    const metadata = knowsNewerFields(request) && { metadata: toMetadata(outcome.instance, outcome.host) };
    if (outcome.kind === 'done') response.json({ ...metadata });
    else response.status(202).json({ operation: outcome.operationId, ...metadata });
  };
}
