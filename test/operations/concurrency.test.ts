import { describe, expect, it } from 'vitest';
import { createConcurrency } from '../../src/operations/concurrency.ts';
import { eventually } from '../support/eventually.ts';

const never = () => new Promise<never>(() => undefined);

describe('turns', () => {
  // Seen to fail without the race in `boot`, and with no limit.
  it('of boots are few, and pass on from those that hang', async () => {
    const turns = createConcurrency(200);
    let begun = 0;
    for (let count = 0; count < 100; count += 1) {
      void turns.boot(() => {
        begun += 1;
        return never();
      });
    }
    await eventually('some begin', () => begun > 0);
    const first = begun;
    expect(first).toBeLessThan(100);
    await eventually('the next begin', () => begun > first);
  });

  it('give back what was returned, and what was thrown', async () => {
    const turns = createConcurrency();
    expect(await turns.boot(() => Promise.resolve(1))).toBe(1);
    expect(await turns.work(() => Promise.resolve(2))).toBe(2);
    await expect(turns.boot(() => Promise.reject(new Error('no')))).rejects.toThrow('no');
    await expect(turns.work(() => Promise.reject(new Error('no')))).rejects.toThrow('no');
  });
});
