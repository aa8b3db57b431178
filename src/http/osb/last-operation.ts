import type { RequestHandler } from 'express';
import type { Instances } from '../../core/broker/instances.ts';
import { instanceReference, queryText } from './input.ts';

/** Whole seconds until it is worth asking again; Cloud Controller's own default is a minute. */
const retryAfterSeconds = 5;

/** GET /v2/service_instances/:instance_id/last_operation */
export function lastOperation(instances: Instances): RequestHandler {
  return async (request, response) => {
    const report = await instances.lastOperation({
      ...instanceReference(request, response),
      operationId: queryText(request, 'operation'),
    });
    if (report.state === 'in progress') response.set('Retry-After', String(retryAfterSeconds));
    response.json({
      state: report.state,
      description: report.description,
      ...(report.instanceUsable !== undefined && { instance_usable: report.instanceUsable }),
      ...(report.updateRepeatable !== undefined && { update_repeatable: report.updateRepeatable }),
    });
  };
}
