/** A column: its title, and what stands in it for an entry. */
export type Column<T> = readonly [title: string, cell: (entry: T) => string];

/** Prints a line for each entry under the titles, columns aligned. */
export function printTable<T>(columns: readonly Column<T>[], entries: readonly T[]): void {
  const rows = [
    columns.map(([title]) => title),
    ...entries.map((entry) => columns.map(([, cell]) => cell(entry))),
  ];
  const widths = columns.map((_, index) => Math.max(...rows.map((row) => row[index]?.length ?? 0)));
  for (const row of rows) {
    process.stdout.write(
      `${row
        .map((cell, index) => cell.padEnd(widths[index] ?? 0))
        .join('  ')
        .trimEnd()}\n`,
    );
  }
}
