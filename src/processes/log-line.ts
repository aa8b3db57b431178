import { escapeUnprintable } from '../lib/printable.ts';

/** Of a line, in characters. */
const longestLine = 16 * 1024;

/**
 * Makes a line of the log safe for every text that its fields quote: control and format characters that JSON allows are escaped
 * (the rest of them JSON escapes anyway), and a line beyond 16 KiB is shortened, with the field `shortened`.
 * @param line JSON, as pino writes it; the result is JSON as well.
 */
export function logLine(line: string): string {
  const text = escapeUnprintable(line.trimEnd());
  return `${text.length <= longestLine ? text : shorten(line)}\n`;
}

/** Cuts strings, then lists; of a line that is still too long only Berth's own fields remain. */
function shorten(line: string): string {
  const entry = JSON.parse(line) as Record<string, unknown>;
  for (const most of [2_000, 200, 20]) {
    const cut = (_: string, value: unknown) => {
      if (typeof value === 'string' && value.length > most) return `${value.slice(0, most)}…`;
      return Array.isArray(value) ? value.slice(0, most) : value;
    };
    const text = escapeUnprintable(JSON.stringify({ ...entry, shortened: true }, cut));
    if (text.length <= longestLine) return text;
  }
  const { level, time, process, msg } = entry;
  return escapeUnprintable(
    JSON.stringify({ level, time, process, msg: String(msg).slice(0, 200), shortened: true }),
  );
}
