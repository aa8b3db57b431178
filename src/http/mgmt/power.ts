import type { RequestHandler } from 'express';
import { refused } from '../../core/errors.ts';
import type { HostPower } from '../../core/model/host.ts';
import type { Records } from '../../core/ports/store.ts';
import { isUuid } from '../../lib/uuid.ts';

const powers: readonly HostPower[] = ['running', 'paused', 'suspended'];

/** PUT /mgmt/hosts/:host/power/:power: 202, once the worker has been asked. Running containers don't prevent it. */
export function putPower(
  records: Pick<Records, 'requestPower'>,
): RequestHandler<{ host: string; power: string }> {
  return async (request, response) => {
    const { host, power } = request.params;
    const wanted = powers.find((one) => one === power);
    if (wanted === undefined) {
      throw refused.badRequest(
        `power is ${JSON.stringify(power.slice(0, 40))}: it must be one of ${powers.join(', ')}.`,
      );
    }
    if (!isUuid(host) || !(await records.requestPower(host, wanted))) {
      throw refused.notFound('A running host with this id does not exist.');
    }
    response.status(202).json({});
  };
}
