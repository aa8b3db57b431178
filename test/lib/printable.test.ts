import { expect, it } from 'vitest';
import { escapeUnprintable, printable } from '../../src/lib/printable.ts';

it.each([
  ['escape sequences', '\u001b[2Jgone', '\\u001b[2Jgone'],
  ['line breaks and tabs', 'a\r\nb\tc', 'a\\u000d\\u000ab\\u0009c'],
  ['C1 controls', 'a\u009b31mb\u007f', 'a\\u009b31mb\\u007f'],
  ['direction overrides', 'a\u202egnp.exe', 'a\\u202egnp.exe'],
  ['Unicode line separators', 'a\u2028b', 'a\\u2028b'],
  ['invisible characters beyond 16 bits', 'a\u{e0001}b', 'a\\udb40\\udc01b'],
  ['an unpaired surrogate', 'a\ud800b', 'a\\ud800b'],
])('printable: escapes %s', (_, text, expected) => {
  expect(printable(text)).toBe(expected);
  // Text passes several places that escape it.
  expect(printable(expected)).toBe(expected);
  const json = escapeUnprintable(JSON.stringify({ text }));
  expect(json).toBe(`{"text":"${expected.replace(/\\u000d\\u000a/, '\\r\\n').replace('\\u0009', '\\t')}"}`);
  expect(JSON.parse(json)).toEqual({ text });
});

it('printable: leaves letters of any language as they are', () => {
  expect(printable('Zürich 東京 🐳')).toBe('Zürich 東京 🐳');
});

it('printable: cuts a long text at the limit, without splitting a character or an escape', () => {
  expect(printable('🐳'.repeat(500), 10)).toBe(`${'🐳'.repeat(4)}…`);
  expect(printable('🐳'.repeat(5), 10)).toBe('🐳'.repeat(5));
  expect(printable('a\u001b\u001bb', 10)).toBe('a\\u001b…');
  expect(printable('\u001b', 5)).toBe('…');
  expect(printable('x'.repeat(1_000_000))).toHaveLength(120);
  expect(printable('\u001b'.repeat(1_000_000)).length).toBeLessThanOrEqual(120);
});
