import { expect, it } from 'vitest';
import { errorMessage } from '../../src/lib/error-message.ts';

it('errorMessage: is the message of an Error, and the text of anything else that was thrown', () => {
  expect(errorMessage(new TypeError('no such field'))).toBe('no such field');
  expect(errorMessage('plain text')).toBe('plain text');
  expect(errorMessage(undefined)).toBe('undefined');
});

// Fails without the escape: Postgres refuses a NUL, so a guest could keep the reason of a failure from being recorded.
it('errorMessage: is one printable line of bounded length, also for text of a guest or a tool', () => {
  expect(errorMessage(new Error('nft failed:\n  Error: \u001b[2Jno\u0000\r\n\n  ^^'))).toBe(
    'nft failed: Error: \\u001b[2Jno\\u0000 ^^',
  );
  expect(errorMessage('x'.repeat(1_000_000))).toHaveLength(1_000);
  expect(errorMessage(new Error('\u202e'.repeat(1_000_000))).length).toBeLessThanOrEqual(1_000);
});
