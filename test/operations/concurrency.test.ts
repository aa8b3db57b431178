import { describe, expect, it } from 'vitest';
import { createConcurrency } from '../../src/operations/concurrency.ts';
import { eventually } from '../support/eventually.ts';

const never = () => new Promise<never>(() => undefined);

describe('concurrency', () => {
  // Fails without the race in `createTimedLimit`, and without a limit.
  it('concurrency: boots are limited, and a hanging boot loses its slot', async () => {
    const limits = createConcurrency(200);
    let begun = 0;
    for (let count = 0; count < 100; count += 1) {
      void limits.limitBoot(() => {
        begun += 1;
        return never();
      });
    }
    await eventually('some begin', () => begun > 0);
    const first = begun;
    expect(first).toBeLessThan(100);
    await eventually('the next begin', () => begun > first);
  });

  it('concurrency: passes on results and errors', async () => {
    const limits = createConcurrency();
    expect(await limits.limitBoot(() => Promise.resolve(1))).toBe(1);
    expect(await limits.limitStep(() => Promise.resolve(2))).toBe(2);
    await expect(limits.limitBoot(() => Promise.reject(new Error('no')))).rejects.toThrow('no');
    await expect(limits.limitStep(() => Promise.reject(new Error('no')))).rejects.toThrow('no');
  });
});
