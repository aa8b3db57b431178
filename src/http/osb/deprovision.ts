import type { RequestHandler } from 'express';
import type { Instances } from '../../core/broker/instances.ts';
import { acceptsIncomplete, instanceReference, requirePlatformIds } from './path-and-query.ts';

/** DELETE /v2/service_instances/:instance_id */
export function deprovision(instances: Instances): RequestHandler {
  return async (request, response) => {
    const reference = instanceReference(request, response);
    requirePlatformIds(reference);
    const outcome = await instances.deprovision({
      ...reference,
      acceptsIncomplete: acceptsIncomplete(request),
    });
    // Never an empty body: Cloud Controller regards that as malformed (docs/osb.md 38).
    if (outcome.kind === 'accepted') response.status(202).json({ operation: outcome.operationId });
    else response.status(200).json({});
  };
}
