/** Control and format characters, unpaired surrogates, line and paragraph separators (Unicode general categories). */
const unprintable = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** Most text has none of the characters above, and this test is much faster. */
const plain = /^[ -~]*$/;

/**
 * Escapes the characters that move a cursor, change colours, end a line or reorder it, as `\u001b`. JSON remains the same
 * JSON (RFC 8259, section 7). Text that has been escaped before stays as it is.
 */
export function escapeUnprintable(text: string): string {
  if (plain.test(text)) return text;
  return text.replaceAll(unprintable, (character) =>
    Array.from(
      { length: character.length },
      (_, index) => `\\u${character.charCodeAt(index).toString(16).padStart(4, '0')}`,
    ).join(''),
  );
}

/** Escapes text from outside Berth for one line of a terminal or a log, and cuts it to `maxLength` UTF-16 units. */
export function printable(text: string, maxLength = 120): string {
  if (text.length <= maxLength && plain.test(text)) return text;
  // The slice bounds the work on a long text. Split first: an escape or a character is never cut in two.
  const parts = Array.from(text.slice(0, maxLength + 1), escapeUnprintable);
  if (parts.join('').length <= maxLength) return parts.join('');
  let short = '';
  for (const part of parts) {
    if (short.length + part.length >= maxLength) break;
    short += part;
  }
  return `${short}…`;
}
