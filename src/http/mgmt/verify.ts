import type { RequestHandler } from 'express';
import { refused } from '../../core/errors.ts';
import type { HostChecks } from '../../core/ports/host-checks.ts';

const hostPrefix = /^[0-9a-f-]{1,36}$/;

/** POST /mgmt/verify or /mgmt/verify/HOST (the beginning of a host's id): runs an integrity check and returns its result. */
export function verify(checks: HostChecks): RequestHandler {
  return async (request, response) => {
    const { host } = request.params;
    if (host !== undefined && !(typeof host === 'string' && hostPrefix.test(host))) {
      throw refused.badRequest('HOST must be the beginning of a host id: hexadecimal digits and dashes.');
    }
    response.json({ hosts: await checks.now(host) });
  };
}
