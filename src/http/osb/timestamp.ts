/**
 * A timestamp as OSB clients parse it, with exactly one fractional digit: `2026-11-22T12:00:59.0Z` (OSB 2.17,
 * "Binding Metadata Object").
 */
export function osbTimestamp(moment: Date): string {
  const iso = moment.toISOString();
  return `${iso.slice(0, 19)}.${iso.slice(20, 21)}Z`;
}
