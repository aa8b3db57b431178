/** Control and format characters, unpaired surrogates, line and paragraph separators (Unicode general categories). */
const unprintable = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/**
 * Makes text from outside Berth safe for a terminal: without characters that move the cursor, change colours or
 * reorder the line, and at most `maxLength` characters long.
 */
export function printable(text: string, maxLength = 120): string {
  // A character has one or two UTF-16 units; the slice bounds the work on a long text.
  const characters = Array.from(text.slice(0, 2 * maxLength + 2));
  const short = characters.length <= maxLength ? characters : [...characters.slice(0, maxLength - 1), '…'];
  return short.join('').replaceAll(unprintable, '?');
}
