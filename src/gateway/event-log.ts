import type { Logger } from '../lib/logger.ts';

/**
 * Logs what any client can cause as often as it likes: of each reason one line in ten seconds. The next one has the number of
 * those that were left out (`notLogged`); the metrics have them all.
 * @param reason one of few words, never a client's text.
 */
export type EventLog = (level: 'info' | 'warn', reason: string, details: object, message: string) => void;

const oneInMs = 10_000;

/** @param deps.now milliseconds of a monotonic clock. */
export function createEventLog(deps: { logger: Logger; now: () => number }): EventLog {
  const byReason = new Map<string, { loggedAt: number; notLogged: number }>();
  return (level, reason, details, message) => {
    const now = deps.now();
    const last = byReason.get(reason);
    if (last !== undefined && now - last.loggedAt < oneInMs) {
      last.notLogged += 1;
      return;
    }
    byReason.set(reason, { loggedAt: now, notLogged: 0 });
    const notLogged = last?.notLogged ?? 0;
    deps.logger[level]({ reason, ...details, ...(notLogged > 0 && { notLogged }) }, message);
  };
}
