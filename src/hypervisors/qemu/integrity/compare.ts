import type { Drift } from '../../../core/hypervisor/integrity.ts';
import { printable } from '../../../lib/printable.ts';
import { type Facts, manifestSections } from './manifest.ts';

/** Differences that are described in full; of a longer list only the number is given. */
const maxDescribed = 4;
const maxLineLength = 300;

/** The differences by section. Sections that are not recorded are not compared. */
export function compare(expected: Facts, found: Facts): Drift[] {
  return manifestSections.flatMap((part) => {
    const before = expected[part];
    const detail = before === undefined ? undefined : difference(before, found[part] ?? []);
    return detail === undefined ? [] : [{ part, detail }];
  });
}

/** How two lists of lines differ, in their order as well; undefined if they are equal. */
export function difference(before: readonly string[], after: readonly string[]): string | undefined {
  const missing = without(before, after);
  const added = without(after, before);
  if (missing.length + added.length > 0) {
    const lines = [...missing.map((line) => `missing: ${line}`), ...added.map((line) => `new: ${line}`)];
    const more = lines.length > maxDescribed ? `; and ${lines.length - maxDescribed} more` : '';
    const named = lines.slice(0, maxDescribed).map((line) => printable(line, maxLineLength));
    return `${named.join('; ')}${more}`;
  }
  // Order matters, because the first matching rule decides.
  const moved = before.find((line, index) => line !== after[index]);
  return moved === undefined ? undefined : `different order: ${printable(moved, maxLineLength)}`;
}

/** The lines of one list that the other lacks, counting repetitions. */
function without(lines: readonly string[], others: readonly string[]): string[] {
  const left = new Map<string, number>();
  for (const line of others) left.set(line, (left.get(line) ?? 0) + 1);
  return lines.filter((line) => {
    const count = left.get(line) ?? 0;
    if (count > 0) left.set(line, count - 1);
    return count === 0;
  });
}
