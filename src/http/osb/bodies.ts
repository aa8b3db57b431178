import { Ajv, type ValidateFunction } from 'ajv';
import type { Request } from 'express';
import { refused } from '../../core/errors.ts';
import type { JsonObject } from '../../core/model/json.ts';

/** Absent, null and empty mean the same (docs/osb.md 21). */
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
  bind_resource?: { app_guid?: string | null; space_guid?: string | null } | null;
  context?: JsonObject | null;
  parameters?: JsonObject | null;
}

/** Only the version is compared (docs/osb.md 21). */
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
  bind_resource: {
    type: ['object', 'null'],
    properties: { app_guid: optionalText, space_guid: optionalText },
  },
  context: optionalObject,
  parameters: optionalObject,
};
/** A rotation names its predecessor and inherits the other fields from it (docs/osb.md 34). */
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

/** The value of an optional object; undefined if it is absent, null or empty (docs/osb.md 21). */
export function nonEmptyObject(value: JsonObject | null | undefined): JsonObject | undefined {
  return value === null || value === undefined || Object.keys(value).length === 0 ? undefined : value;
}

/** The value of an optional string; undefined if it is absent, null or empty (docs/osb.md 21). */
export function nonEmptyText(value: string | null | undefined): string | undefined {
  return value === null || value === '' ? undefined : value;
}

/** @throws RefusedError (400) that names each missing or invalid field. */
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
