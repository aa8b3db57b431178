import { maxBodyDepth } from './limits.ts';

/**
 * What neither Postgres nor whatever walks through a value of JSON can take, in any corner of it; in words that go
 * on from "the body". Undefined where there is nothing of the kind.
 * @param depth of `value` itself: 1 for the outermost.
 */
export function flawOf(value: unknown, depth: number): string | undefined {
  if (typeof value === 'string') return flawOfText(value);
  if (typeof value !== 'object' || value === null) return undefined;
  if (depth > maxBodyDepth) return `is nested deeper than ${maxBodyDepth} levels`;
  for (const [key, inner] of Object.entries(value)) {
    const flaw = flawOfText(key) ?? flawOf(inner, depth + 1);
    if (flaw !== undefined) return flaw;
  }
  return undefined;
}

function flawOfText(text: string): string | undefined {
  if (text.includes('\0')) return 'holds a NUL character, which no id or name may have';
  // A surrogate without its other half is no character: neither UTF-8 nor jsonb can hold it.
  return /\p{Surrogate}/u.test(text) ? 'holds half a character: an unpaired surrogate' : undefined;
}
