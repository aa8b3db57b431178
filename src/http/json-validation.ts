import { maxBodyDepth } from './limits.ts';

/**
 * Finds what Postgres or a recursive function can't process in a JSON value, at any depth. The result continues the
 * sentence "the body …"; undefined if the value is fine.
 * @param depth of `value` itself: 1 for the outermost.
 */
export function jsonProblem(value: unknown, depth: number): string | undefined {
  if (typeof value === 'string') return textProblem(value);
  if (typeof value !== 'object' || value === null) return undefined;
  if (depth > maxBodyDepth) return `is nested deeper than ${maxBodyDepth} levels`;
  for (const [key, inner] of Object.entries(value)) {
    const problem = textProblem(key) ?? jsonProblem(inner, depth + 1);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

function textProblem(text: string): string | undefined {
  if (text.includes('\0')) return 'contains a NUL character, which no id or name may have';
  // Neither UTF-8 nor jsonb can represent half of a surrogate pair.
  return /\p{Surrogate}/u.test(text) ? 'contains an unpaired UTF-16 surrogate' : undefined;
}
