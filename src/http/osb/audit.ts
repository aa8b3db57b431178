import type { Request } from 'express';
import type { JsonObject } from '../../core/model/json.ts';
import type { Platform } from '../../core/ports/platforms.ts';
import type { Describe } from '../audit.ts';
import { decodeIdentity } from './headers.ts';

const route = /^\/v2\/service_instances\/([^/]+)(?:\/service_bindings\/([^/]+))?\/?$/;
const actions: Readonly<Record<string, readonly [instance: string, binding: string] | undefined>> = {
  PUT: ['provision', 'bind'],
  PATCH: ['update', 'binding-update'],
  DELETE: ['deprovision', 'unbind'],
};

/** What the audit trail records about an OSB request, which may have been refused before it was validated. */
export const describeOsbRequest: Describe = (request, response) => {
  const [path, instanceId, bindingId] = route.exec(request.path) ?? [];
  const action = actions[request.method]?.[bindingId === undefined ? 0 : 1];
  if (path === undefined || action === undefined) return undefined;
  const platform = response.locals['platform'] as Platform | undefined;
  return {
    actor: 'platform',
    action,
    platform: platform?.name,
    identity: decodeIdentity(request.get('X-Broker-API-Originating-Identity') ?? ''),
    instanceId: decoded(instanceId),
    bindingId: decoded(bindingId),
    detail: detailOf(request),
  };
};

/** The requested plan and the names of the parameters; their values may be secret. */
function detailOf(request: Request): JsonObject | undefined {
  const body: unknown = request.body;
  if (typeof body !== 'object' || body === null) return undefined;
  const { plan_id: plan, parameters } = body as Record<string, unknown>;
  const names =
    typeof parameters === 'object' && parameters !== null ? Object.keys(parameters).slice(0, 20) : [];
  return {
    ...(typeof plan === 'string' && { plan_id: plan.slice(0, 100) }),
    ...(names.length > 0 && { parameters: names.map((name) => name.slice(0, 40)) }),
  };
}

function decoded(part: string | undefined): string | undefined {
  if (part === undefined) return undefined;
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
