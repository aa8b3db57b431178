import { setTimeout as delay } from 'node:timers/promises';
import { refused } from './errors.ts';
import type { CheckRequests, HostChecks } from './ports/host-checks.ts';

/** How long an operator's request waits for the workers, in milliseconds. */
const timeoutMs = 60_000;
const pollMs = 100;

/** The operators' side of integrity checks: requests them from the workers, and waits for the results. */
export function createHostChecks(requests: CheckRequests): HostChecks {
  return {
    async now(host) {
      const ids = await requests.find(host);
      if (host !== undefined && ids.length === 0) {
        throw refused.notFound(`There is no host ${host}. \`berth hosts\` lists them.`);
      }
      await requests.requestCheck(ids);
      const deadline = performance.now() + timeoutMs;
      for (;;) {
        const results = await requests.results(ids);
        if (results.every(({ pending }) => !pending)) return results.map(({ check }) => check);
        if (performance.now() > deadline) {
          throw refused.unavailable(
            'No worker has checked the hosts in time. GET /mgmt/health says whether a worker runs.',
          );
        }
        await delay(pollMs);
      }
    },

    release: (hostId) => requests.requestRelease(hostId),
  };
}
