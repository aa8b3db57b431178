import { expect, it } from 'vitest';
import { isUuid } from '../../src/lib/uuid.ts';

it('isUuid: accepts a complete UUID in lower case only', () => {
  expect(isUuid('5d8f1e7c-0a3b-4a52-9d4e-6f4b3a1c7e10')).toBe(true);
  expect(isUuid('5D8F1E7C-0A3B-4A52-9D4E-6F4B3A1C7E10')).toBe(false);
  expect(isUuid('5d8f1e7c-0a3b-4a52-9d4e-6f4b3a1c7e1')).toBe(false);
  expect(isUuid('../5d8f1e7c-0a3b-4a52-9d4e-6f4b3a1c7e10')).toBe(false);
});
