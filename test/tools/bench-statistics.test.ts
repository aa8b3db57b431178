import { expect, it } from 'vitest';
import { median, p95 } from '../../tools/bench/lib/statistics.ts';

it('percentiles: use the nearest rank', () => {
  expect(median([5, 1, 3])).toBe(3);
  expect(median([4, 1, 3, 2])).toBe(2);
  expect(p95([1, 2, 3, 4, 5])).toBe(5);
  expect(p95(Array.from({ length: 100 }, (_, index) => index + 1))).toBe(95);
  expect(() => median([])).toThrow();
});
