import { describe, expect, it } from 'vitest';
import { setTimeout as delay } from 'node:timers/promises';
import { correctClock } from '../../src/guest/clock.ts';

/**
 * A guest whose clock is ahead by this, in milliseconds, and that reads it after the first of two delays of an exchange.
 * It keeps all adjustments.
 */
function guest(aheadMs: number, delays: readonly (readonly [beforeMs: number, afterMs: number])[]) {
  const adjustments: number[] = [];
  let ahead = aheadMs;
  let exchanges = 0;
  return {
    adjustments,
    ahead: () => ahead,
    exchanges: () => exchanges,
    read: async (adjustMs?: number) => {
      const [beforeMs, afterMs] = delays[Math.min(exchanges, delays.length - 1)] ?? [0, 0];
      exchanges += 1;
      if (beforeMs > 0) await delay(beforeMs);
      const time = Date.now() + ahead;
      if (adjustMs !== undefined) {
        adjustments.push(adjustMs);
        ahead += adjustMs;
      }
      if (afterMs > 0) await delay(afterMs);
      return time;
    },
  };
}

const quick = [[0, 0]] as const;

describe('guest clock', () => {
  it.each([-3_600_000, -90, 90, 3_600_000])(
    'guest clock: an error of %i ms is corrected',
    async (aheadMs) => {
      const { read, ahead, adjustments } = guest(aheadMs, quick);
      expect(await correctClock(read)).toBe(true);
      expect(adjustments).toHaveLength(1);
      expect(Math.abs(ahead())).toBeLessThan(20);
    },
  );

  it('guest clock: a right clock costs one exchange and is left alone', async () => {
    const { read, exchanges } = guest(1, quick);
    expect(await correctClock(read)).toBe(true);
    expect(exchanges()).toBe(1);
  });

  // Fails if the clock is taken for read in the middle of one round trip: it was set 200 ms back.
  it('guest clock: a right clock is left alone although requests arrive late', async () => {
    const { read, adjustments } = guest(0, [[400, 0]]);
    expect(await correctClock(read)).toBe(true);
    expect(adjustments).toEqual([]);
  });

  // Fails with one measurement: the error stayed at half of the longest round trip.
  it('guest clock: a quick exchange among slow ones decides', async () => {
    const slow = [600, 0] as const;
    const { read, ahead } = guest(-700, [slow, slow, [0, 0], slow]);
    expect(await correctClock(read)).toBe(true);
    expect(Math.abs(ahead())).toBeLessThan(20);
  });

  // Fails if only an error that is certain is corrected: the clock stayed behind by 900 ms.
  it('guest clock: an error that may be large is corrected although no exchange is quick', async () => {
    const { read, ahead } = guest(-900, [[950, 0]]);
    expect(await correctClock(read)).toBe(true);
    expect(Math.abs(ahead())).toBeLessThan(500);
  });

  it('guest clock: a guest that does not answer is reported', async () => {
    expect(await correctClock(() => Promise.resolve(undefined))).toBe(false);
  });
});
