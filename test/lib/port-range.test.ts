import { expect, it } from 'vitest';
import { formatPortRange } from '../../src/lib/port-range.ts';

it('formatPortRange: writes a range, a single port, and nothing for an empty block', () => {
  expect(formatPortRange({ first: 20_010, count: 10 })).toBe('20010-20019');
  expect(formatPortRange({ first: 20_010, count: 1 })).toBe('20010');
  expect(formatPortRange({ first: 20_010, count: 0 })).toBe('');
});
