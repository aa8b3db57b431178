import type { Request, Response } from 'express';
import type { InstanceReference } from '../../core/broker/references.ts';
import { refused } from '../../core/errors.ts';
import { platformOf } from '../auth.ts';

/**
 * An id from the path, already percent-decoded.
 * @throws RefusedError (400)
 */
export function pathId(request: Request, name: 'instance_id' | 'binding_id'): string {
  const id = String(request.params[name]);
  if (id === '' || Array.from(id).length > 255) {
    throw refused.badRequest(`${name}: must have 1 to 255 characters, and no NUL.`);
  }
  return id;
}

/** A query parameter; absent and empty are the same. */
export function queryText(request: Request, name: string): string | undefined {
  const value = request.query[name];
  if (value === undefined || value === '') return undefined;
  if (typeof value !== 'string') throw refused.badRequest(`${name}: must be given once.`);
  if (value.length > 10_000) throw refused.badRequest(`${name}: is longer than 10,000 characters.`);
  return value;
}

export function acceptsIncomplete(request: Request): boolean {
  const value = queryText(request, 'accepts_incomplete');
  if (value !== undefined && value !== 'true' && value !== 'false') {
    throw refused.badRequest('accepts_incomplete: must be true or false.');
  }
  return value === 'true';
}

/** The instance that a request is about, with the service and plan ids that platforms send as hints. */
export function instanceReference(request: Request, response: Response): InstanceReference {
  return {
    platformId: platformOf(response).id,
    instanceId: pathId(request, 'instance_id'),
    serviceId: queryText(request, 'service_id'),
    planId: queryText(request, 'plan_id'),
  };
}

/** A DELETE requires both ids (docs/osb.md 38). @throws RefusedError (400) */
export function requirePlatformIds(reference: InstanceReference): void {
  for (const [name, value] of [
    ['service_id', reference.serviceId],
    ['plan_id', reference.planId],
  ]) {
    if (value === undefined) throw refused.badRequest(`${name ?? ''}: is required, as a query parameter.`);
  }
}
