import { expect, it } from 'vitest';
import { TimeoutError, withTimeout } from '../../src/lib/with-timeout.ts';

const never = new Promise<never>(() => undefined);

it('withTimeout: returns what the promise brings in time', async () => {
  expect(await withTimeout(1_000, 'the look-up', Promise.resolve(7))).toBe(7);
});

it('withTimeout: passes on the error of the promise', async () => {
  await expect(withTimeout(1_000, 'the look-up', Promise.reject(new Error('refused')))).rejects.toThrow(
    new Error('refused'),
  );
});

it('withTimeout: throws an error that names the work and the limit', async () => {
  await expect(withTimeout(10, 'the look-up', never)).rejects.toThrow(
    new TimeoutError('the look-up took longer than 0.01 s'),
  );
});
