import { expect, it } from 'vitest';
import { errorMessage } from '../../src/lib/error-message.ts';

it('errorMessage: is the message of an Error, and the text of anything else that was thrown', () => {
  expect(errorMessage(new TypeError('no such field'))).toBe('no such field');
  expect(errorMessage('plain text')).toBe('plain text');
  expect(errorMessage(undefined)).toBe('undefined');
});
