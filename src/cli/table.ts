import { printable } from '../lib/printable.ts';
import { printLine } from '../lib/terminal.ts';

/** A column: its title, its text for an entry, and the width in characters beyond which the text is cut. */
export type Column<T> = readonly [title: string, cell: (entry: T) => string, maxWidth?: number];

/**
 * Prints a line for each entry under the titles, columns aligned. Cells are escaped for the terminal: names come
 * from platforms.
 */
export function printTable<T>(columns: readonly Column<T>[], entries: readonly T[]): void {
  const rows = [
    columns.map(([title]) => title),
    ...entries.map((entry) => columns.map(([, cell, maxWidth]) => printable(cell(entry), maxWidth))),
  ];
  const widths = columns.map((_, index) => Math.max(...rows.map((row) => row[index]?.length ?? 0)));
  for (const row of rows) {
    printLine(
      row
        .map((cell, index) => cell.padEnd(widths[index] ?? 0))
        .join('  ')
        .trimEnd(),
    );
  }
}
