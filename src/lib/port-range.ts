/** A block of ports as text: `20010-20019`, `20010` for one port, the empty string for none. */
export function formatPortRange({
  first,
  count,
}: {
  readonly first: number;
  readonly count: number;
}): string {
  if (count === 0) return '';
  return count === 1 ? String(first) : `${first}-${first + count - 1}`;
}
