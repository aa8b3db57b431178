import type { RequestHandler } from 'express';
import type { Overview } from '../../core/ports/overview.ts';
import { errorMessage } from '../../lib/error-message.ts';

/** GET /mgmt/health: 200 where every role is at work, else 503; `problems` says in words which is not. */
export function health(overview: Overview, hypervisor: string): RequestHandler {
  return async (_request, response) => {
    const problems: string[] = [];
    try {
      const { gateways, workers, freeSlots } = await overview.counts();
      if (gateways.live === 0) problems.push('No gateway holds a lease: no app reaches its host.');
      if (!workers.some(({ alive }) => alive)) {
        problems.push('No worker has been heard of lately: no operation goes on.');
      }
      if (freeSlots === 0) problems.push('No slot is free: further instances are refused.');
    } catch (error) {
      problems.push(`Postgres can't be asked: ${errorMessage(error)}.`);
    }
    response.status(problems.length === 0 ? 200 : 503).json({
      status: problems.length === 0 ? 'ok' : 'degraded',
      hypervisor,
      simulated: hypervisor === 'simulated',
      problems,
    });
  };
}
