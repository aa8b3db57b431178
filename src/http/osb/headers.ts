import type { Request, RequestHandler } from 'express';
import type { OriginatingIdentity } from '../../core/ports/audit.ts';
import { refused } from '../../core/errors.ts';
import type { JsonObject } from '../../core/model/json.ts';
import { jsonProblem } from '../json-validation.ts';

/**
 * Whether the platform speaks 2.15 or higher. Response fields newer than 2.14, such as `metadata`, are sent to no
 * older platform: older clients fail on them (docs/osb.md 1).
 */
export function knowsNewerFields(request: Request): boolean {
  return Number(/^2\.(\d+)$/.exec(request.get('X-Broker-API-Version') ?? '')?.[1] ?? 0) >= 15;
}

/** `X-Broker-API-Version` is required, deliberately also of clients that send none (docs/osb.md 1). */
export const apiVersion: RequestHandler = (request, _response, next) => {
  const sent = request.get('X-Broker-API-Version');
  next(sent !== undefined && /^2\.\d{1,4}$/.test(sent) ? undefined : refused.apiVersion(sent));
};

/**
 * Checks `X-Broker-API-Originating-Identity`, if it is sent: a platform and base64 of a JSON object (OSB 2.17,
 * "Originating Identity").
 */
export const originatingIdentity: RequestHandler = (request, _response, next) => {
  const sent = request.get('X-Broker-API-Originating-Identity');
  next(
    sent === undefined || decodeIdentity(sent) !== undefined
      ? undefined
      : refused.badRequest(
          'X-Broker-API-Originating-Identity is not of the form: platform, a space, and base64 of a JSON object without NUL characters.',
        ),
  );
};

/** The decoded header; undefined if it is malformed. */
export function decodeIdentity(header: string): OriginatingIdentity | undefined {
  const [, platform, encoded] = /^(\S+) +([A-Za-z0-9+/_-]+=*)$/.exec(header) ?? [];
  if (platform === undefined || encoded === undefined) return undefined;
  try {
    const value: unknown = JSON.parse(Buffer.from(encoded, 'base64').toString('utf8'));
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
    return jsonProblem(value, 1) === undefined ? { platform, value: value as JsonObject } : undefined;
  } catch {
    return undefined;
  }
}
