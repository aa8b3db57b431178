const minuteMs = 60_000;
const units: Readonly<Record<string, number>> = { m: minuteMs, h: 60 * minuteMs, d: 24 * 60 * minuteMs };

/** A duration as parameters state it, such as `90m`, `12h` or `30d`: the pattern of a JSON schema. */
export const durationPattern = '^[1-9][0-9]{0,5}[mhd]$';

/** The duration in milliseconds. The text must match {@link durationPattern}. */
export function durationMs(text: string): number {
  const unit = units[text.slice(-1)];
  if (unit === undefined) throw new Error(`${text} is not a duration`);
  return Number(text.slice(0, -1)) * unit;
}
