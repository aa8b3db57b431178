import type { RequestHandler } from 'express';
import type { AuditTrail } from '../../core/ports/audit.ts';
import { refused } from '../../core/errors.ts';
import type { Platform } from '../../core/ports/platforms.ts';
import type { Describe } from '../audit.ts';

/** What the audit trail records about a management request. Its paths contain no secrets. */
export const describeMgmtRequest: Describe = (request, response) => {
  if (!request.path.startsWith('/mgmt/')) return undefined;
  const operator = response.locals['platform'] as Platform | undefined;
  return { actor: 'operator', action: `${request.method} ${request.path}`, platform: operator?.name };
};

const defaultLimit = 100;
const maxLimit = 1_000;

/** GET /mgmt/audit?instance=ID&since=TIME&limit=N: the newest rows, in chronological order. */
export function getAudit(trail: AuditTrail): RequestHandler {
  return async (request, response) => {
    const query = (name: string) => {
      const value = request.query[name];
      if (value !== undefined && typeof value !== 'string') {
        throw refused.badRequest(`${name}: must be given once.`);
      }
      return value === '' ? undefined : value;
    };
    const limit = Number(query('limit') ?? defaultLimit);
    if (!Number.isInteger(limit) || limit < 1 || limit > maxLimit) {
      throw refused.badRequest(`limit: must be a whole number from 1 to ${maxLimit}.`);
    }
    const sinceText = query('since');
    const since = sinceText === undefined ? undefined : new Date(sinceText);
    // A Date can be earlier than any timestamp of Postgres.
    if (since !== undefined && !(since.getTime() >= 0)) {
      throw refused.badRequest('since: must be a time after 1970, such as 2026-11-23T12:00:00Z.');
    }
    const instanceId = query('instance');
    if (instanceId !== undefined && (instanceId.length > 255 || instanceId.includes('\0'))) {
      throw refused.badRequest('instance: must have at most 255 characters, and no NUL.');
    }
    response.json({ audit: await trail.list({ instanceId, since, limit }) });
  };
}
