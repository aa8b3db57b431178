import { expect, it } from 'vitest';
import { howItEnded } from '../../../../src/hypervisors/qemu/launch/how-it-ended.ts';

it.each([
  [undefined, ''],
  [{ exitCode: null, signalCode: null }, ''],
  [{ exitCode: null, signalCode: 'SIGKILL' as const }, ' (SIGKILL)'],
  [{ exitCode: 0, signalCode: null }, ' (its guest was turned off, restarted or panicked)'],
  [{ exitCode: 1, signalCode: null }, ' (exit code 1)'],
])('a VM that has ended: %o is reported as "%s"', (process, text) => {
  expect(howItEnded(process)).toBe(text);
});
