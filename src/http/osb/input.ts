import { Ajv, type ValidateFunction } from 'ajv';
import type { Request, RequestHandler, Response } from 'express';
import type { InstanceReference } from '../../core/broker/instances.ts';
import { refused } from '../../core/errors.ts';
import type { JsonObject } from '../../core/model/json.ts';
import { platformOf } from '../auth.ts';
import { flawOf } from '../json-validation.ts';

/** Bodies are JSON objects, and say so (docs/osb.md 5). */
export const jsonBody: RequestHandler = (request, _response, next) => {
  if (request.is('application/json') === false || request.is('application/json') === null) {
    next(refused.badRequest('The request must have a JSON body, with Content-Type: application/json.'));
    return;
  }
  const body: unknown = request.body;
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    next(refused.badRequest('The request body must be a JSON object.'));
    return;
  }
  const flaw = flawOf(body, 1);
  next(flaw === undefined ? undefined : refused.badRequest(`The request body ${flaw}.`));
};

/**
 * No part of a request may hold a NUL, whether the broker uses it or not, and no id may be empty (docs/osb.md 5).
 * What is not percent-encoded rightly in the path is left to the router, which refuses it.
 */
export const wholeRequest: RequestHandler = (request, _response, next) => {
  const encodedNul = /%00/;
  if (encodedNul.test(request.originalUrl)) {
    next(refused.badRequest('The path or the query holds a NUL character, which no id or name may have.'));
    return;
  }
  const [, kind] = /\/service_(instance|binding)s\/(?:\/|$)/.exec(request.path) ?? [];
  next(
    kind === undefined
      ? undefined
      : refused.badRequest(`${kind}_id: must have 1 to 255 characters, and no NUL.`),
  );
};

/** An id out of the path, already percent-decoded. */
export function pathId(request: Request, name: 'instance_id' | 'binding_id'): string {
  return checkedId(String(request.params[name]), name);
}

function checkedId(id: string, name: string): string {
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

/** The instance that a request is about, with the hints that platforms send beside it. */
export function instanceReference(request: Request, response: Response): InstanceReference {
  return {
    platformId: platformOf(response).id,
    instanceId: pathId(request, 'instance_id'),
    serviceId: queryText(request, 'service_id'),
    planId: queryText(request, 'plan_id'),
  };
}

/** The same for a DELETE, where both hints are required (docs/osb.md 38). */
export function requireHints(reference: InstanceReference): void {
  for (const [name, value] of [
    ['service_id', reference.serviceId],
    ['plan_id', reference.planId],
  ]) {
    if (value === undefined) throw refused.badRequest(`${name ?? ''}: is required, as a query parameter.`);
  }
}

/** A field that may be left out, be null, or be empty: all of them mean the same (docs/osb.md 21). */
const optionalText = { type: ['string', 'null'], maxLength: 255 };
const requiredText = { type: 'string', minLength: 1, maxLength: 255 };
const optionalObject = { type: ['object', 'null'] };
const ajv = new Ajv({ allErrors: true, allowUnionTypes: true });

export interface ProvisionBody {
  service_id: string;
  plan_id: string;
  organization_guid: string;
  space_guid: string;
  context?: JsonObject | null;
  parameters?: JsonObject | null;
  maintenance_info?: { version?: string | null } | null;
}

export interface UpdateBody {
  service_id: string;
  plan_id?: string | null;
  context?: JsonObject | null;
  parameters?: JsonObject | null;
  maintenance_info?: { version?: string | null } | null;
}

export interface BindBody {
  service_id?: string | null;
  plan_id?: string | null;
  predecessor_binding_id?: string | null;
  app_guid?: string | null;
  bind_resource?: { app_guid?: string | null } | null;
  parameters?: JsonObject | null;
}

/** The version is compared, and nothing else of it (docs/osb.md 21). */
const maintenanceInfo = { type: ['object', 'null'], properties: { version: optionalText } };

const provisionBody = ajv.compile<ProvisionBody>({
  type: 'object',
  required: ['service_id', 'plan_id', 'organization_guid', 'space_guid'],
  properties: {
    service_id: requiredText,
    plan_id: requiredText,
    organization_guid: requiredText,
    space_guid: requiredText,
    context: optionalObject,
    parameters: optionalObject,
    maintenance_info: maintenanceInfo,
  },
});

const updateBody = ajv.compile<UpdateBody>({
  type: 'object',
  required: ['service_id'],
  properties: {
    service_id: requiredText,
    plan_id: optionalText,
    context: optionalObject,
    parameters: optionalObject,
    maintenance_info: maintenanceInfo,
  },
});

const bindProperties = {
  service_id: optionalText,
  plan_id: optionalText,
  predecessor_binding_id: optionalText,
  app_guid: optionalText,
  bind_resource: { type: ['object', 'null'], properties: { app_guid: optionalText } },
  parameters: optionalObject,
};
/** A rotation names its predecessor, and may leave all else to it (docs/osb.md 34). */
const rotationBody = ajv.compile<BindBody>({ type: 'object', properties: bindProperties });
const bindBody = ajv.compile<BindBody>({
  type: 'object',
  required: ['service_id', 'plan_id'],
  properties: { ...bindProperties, service_id: requiredText, plan_id: requiredText },
});

export const readProvisionBody = (request: Request): ProvisionBody => read(provisionBody, request);
export const readUpdateBody = (request: Request): UpdateBody => read(updateBody, request);
export function readBindBody(request: Request): BindBody {
  const { predecessor_binding_id: predecessor } = request.body as { predecessor_binding_id?: unknown };
  const rotates = typeof predecessor === 'string' && predecessor !== '';
  return read(rotates ? rotationBody : bindBody, request);
}

/** An optional object: absent, null and empty are the same (docs/osb.md 21). */
export function present(value: JsonObject | null | undefined): JsonObject | undefined {
  return value === null || value === undefined || Object.keys(value).length === 0 ? undefined : value;
}

/** The text of an optional field: absent, null and empty are the same (docs/osb.md 21). */
export function text(value: string | null | undefined): string | undefined {
  return value === null || value === '' ? undefined : value;
}

/** @throws RefusedError (400) which names each field that is missing or wrong. */
function read<T>(validate: ValidateFunction<T>, request: Request): T {
  const body: unknown = request.body;
  if (validate(body)) return body;
  const problems = (validate.errors ?? []).map(({ instancePath, keyword, params, message }) =>
    keyword === 'required'
      ? `${(params as { missingProperty: string }).missingProperty}: is required`
      : `${instancePath.slice(1).replaceAll('/', '.')}: ${message ?? keyword}`,
  );
  throw refused.badRequest(`${[...new Set(problems)].slice(0, 10).join('; ')}.`);
}
