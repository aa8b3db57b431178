import type { RequestHandler } from 'express';
import { refused } from '../../core/errors.ts';
import type { HostDifferences } from '../../core/ports/host-differences.ts';
import { isUuid } from '../../lib/uuid.ts';

/** GET /mgmt/reconcile: every difference between Postgres and the hypervisor, oldest first. */
export function getDifferences(differences: HostDifferences): RequestHandler {
  return async (_request, response) => {
    response.json({ differences: await differences.list() });
  };
}

/** DELETE /mgmt/reconcile/:host: 202, once a worker has been asked to destroy the host. */
export function removeHost(differences: HostDifferences): RequestHandler<{ host: string }> {
  return async (request, response) => {
    const { host } = request.params;
    if (!isUuid(host) || !(await differences.requestRemoval(host))) throw noDifference();
    response.status(202).json({});
  };
}

/** POST /mgmt/reconcile/:host/adopt: 200, once the host is that of its instance again. */
export function adoptHost(differences: HostDifferences): RequestHandler<{ host: string }> {
  return async (request, response) => {
    const { host } = request.params;
    if (!isUuid(host)) throw noDifference();
    await differences.adopt(host);
    response.json({});
  };
}

const noDifference = () =>
  refused.notFound('No difference about a host with this id is on record. "berth reconcile" lists them.');
