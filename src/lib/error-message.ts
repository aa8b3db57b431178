import { printable } from './printable.ts';

/** Characters. */
const longestMessage = 1_000;

/**
 * The message of anything that was thrown; not every library throws an `Error`. It is stored and shown, and may quote a guest or a
 * tool: so it is one line of printable text (Postgres refuses a NUL), of at most 1,000 characters.
 */
export function errorMessage(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  const lines = text.slice(0, 4 * longestMessage).split('\n');
  return printable(
    lines
      .map((line) => line.trim())
      .filter((line) => line !== '')
      .join(' '),
    longestMessage,
  );
}
