import type { RequestHandler } from 'express';
import { refused } from '../../core/errors.ts';
import type { HostChecks } from '../../core/ports/host-checks.ts';
import { isUuid } from '../../lib/uuid.ts';

/** DELETE /mgmt/hosts/:host/quarantine: 202, once a worker has been asked to end it. */
export function deleteQuarantine(checks: HostChecks): RequestHandler<{ host: string }> {
  return async (request, response) => {
    const { host } = request.params;
    if (!isUuid(host) || !(await checks.release(host))) {
      throw refused.notFound('A host with this id in quarantine does not exist.');
    }
    response.status(202).json({});
  };
}
