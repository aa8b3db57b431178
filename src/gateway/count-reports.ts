import type { GatewayCount, GatewayCounts } from '../core/ports/gateway-counts.ts';
import type { Logger } from '../lib/logger.ts';
import { repeat } from '../lib/repeat.ts';
import type { Counters } from './counters.ts';

/**
 * Adds what this gateway has counted to the totals of all gateways: now, every `everyMs` milliseconds, and once more when it
 * is stopped. What could not be added is added the next time.
 */
export function startCountReports(deps: {
  counters: Counters;
  counts: GatewayCounts;
  everyMs: number;
  logger: Logger;
}): { stop(): Promise<void> } {
  const { counts, logger } = deps;
  const added = new Map<string, number>();

  async function report(): Promise<void> {
    const totals = listCounts(deps.counters);
    const more = totals
      .map((total) => ({ ...total, count: total.count - (added.get(nameOf(total)) ?? 0) }))
      // At first also those of 0: a series that begins above 0 hides its first events from rate().
      .filter((one) => one.count > 0 || !added.has(nameOf(one)));
    if (more.length > 0) await counts.add(more);
    for (const total of totals) added.set(nameOf(total), total.count);
  }

  const logFailure = (error: unknown) => {
    logger.debug({ err: error }, "The gateway's counts could not be written; retrying with the next ones");
  };
  const stop = repeat(deps.everyMs, report, logFailure);
  return {
    async stop() {
      await stop();
      await report().catch(logFailure);
    },
  };
}

const nameOf = ({ event, reason }: GatewayCount) => `${event} ${reason}`;

function listCounts(counters: Counters): GatewayCount[] {
  const byReason = (event: 'refused' | 'dropped' | 'cut') =>
    Object.entries(counters[event]).map(([reason, count]) => ({ event, reason, count }));
  return [
    { event: 'admitted', reason: '', count: counters.admitted },
    { event: 'failed', reason: '', count: counters.failedHandshakes },
    ...byReason('refused'),
    ...byReason('dropped'),
    ...byReason('cut'),
    { event: 'bytes', reason: 'to-engines', count: counters.bytesToEngines },
    { event: 'bytes', reason: 'to-clients', count: counters.bytesToClients },
  ];
}
