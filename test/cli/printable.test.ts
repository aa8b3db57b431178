import { expect, it } from 'vitest';
import { printable } from '../../src/cli/printable.ts';

it.each([
  ['escape sequences', '\u001b[2Jgone', '?[2Jgone'],
  ['line breaks and tabs', 'a\r\nb\tc', 'a??b?c'],
  ['C1 controls', 'a\u009b31mb\u007f', 'a?31mb?'],
  ['direction overrides', 'a\u202egnp.exe', 'a?gnp.exe'],
  ['Unicode line separators', 'a\u2028b', 'a?b'],
  ['an unpaired surrogate', 'a\ud800b', 'a?b'],
])('printable: replaces %s', (_, text, expected) => {
  expect(printable(text)).toBe(expected);
});

it('printable: leaves letters of any language as they are', () => {
  expect(printable('Zürich 東京 🐳')).toBe('Zürich 東京 🐳');
});

it('printable: cuts a long text at the limit, without splitting a character', () => {
  expect(printable('🐳'.repeat(500), 10)).toBe(`${'🐳'.repeat(9)}…`);
  expect(printable('🐳'.repeat(10), 10)).toBe('🐳'.repeat(10));
  expect(printable('x'.repeat(1_000_000))).toHaveLength(120);
});
