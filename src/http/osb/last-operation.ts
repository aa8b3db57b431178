import type { RequestHandler } from 'express';
import type { Instances } from '../../core/broker/instances.ts';
import type { Bindings } from '../../core/broker/bindings.ts';
import { printable } from '../../lib/printable.ts';
import { longestDescription } from '../limits.ts';
import { knowsNewerFields } from './headers.ts';
import { instanceReference, pathId, queryText } from './path-and-query.ts';

/** In whole seconds; Cloud Controller's default is a minute. */
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
      description: printable(report.description, longestDescription),
      ...(knowsNewerFields(request) && {
        ...(report.instanceUsable !== undefined && { instance_usable: report.instanceUsable }),
        ...(report.updateRepeatable !== undefined && { update_repeatable: report.updateRepeatable }),
      }),
    });
  };
}

/**
 * GET /v2/service_instances/:instance_id/service_bindings/:binding_id/last_operation. Binding and unbinding are
 * synchronous, so a recorded one has succeeded.
 */
export function lastBindingOperation(bindings: Bindings): RequestHandler {
  return async (request, response) => {
    const description = await bindings.lastOperation({
      ...instanceReference(request, response),
      bindingId: pathId(request, 'binding_id'),
    });
    response.json({ state: 'succeeded', description });
  };
}
