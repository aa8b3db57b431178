import { escapeUnprintable, printable } from './printable.ts';

/** Longer than any line of Berth's own. Characters. */
const longestLine = 10_000;
/** Lines of an error, with its stack. */
const mostErrorLines = 100;

// Everything that Berth prints goes through this file (eslint.config.js), so that text from a tenant, a platform or a guest
// can't act on the reader's terminal.

/** Prints one line to standard output: a line break in it is escaped like every other control character. */
export function printLine(line: string): void {
  process.stdout.write(`${printable(line, longestLine)}\n`);
}

/** Prints Berth's own text of several lines; it must not contain text from outside. */
export function printText(text: string): void {
  for (const line of text.replace(/\n$/, '').split('\n')) printLine(line);
}

/** Prints a value as JSON, whole: it is for programs. */
export function printJson(value: unknown): void {
  const lines = JSON.stringify(value, undefined, 2).split('\n');
  process.stdout.write(`${lines.map(escapeUnprintable).join('\n')}\n`);
}

/** Prints a message to standard error. Its further lines are indented, so that none looks like another message. */
export function printError(message: string): void {
  const [first = '', ...further] = message.trimEnd().split('\n').slice(0, mostErrorLines);
  for (const line of [first, ...further.map((text) => `  ${text}`.trimEnd())]) {
    process.stderr.write(`${printable(line, longestLine)}\n`);
  }
}
