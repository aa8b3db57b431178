import type { WriteStream } from 'node:tty';
import { printable } from './printable.ts';

/** Shows the progress of long work: one line that is rewritten on a terminal, a line per change in a log. */
export interface Progress {
  /** @param line without the elapsed time, which is appended. */
  show(line: string): void;
  end(): void;
}

/** Characters. */
const longestLine = 1_000;

const elapsedText = (seconds: number) => ` (${seconds} s)`;

/** A printed progress line without its elapsed time, for a program that passes the line on. */
export const withoutElapsed = (line: string) => line.replace(/ \(\d+ s\)$/, '');

type Output = Pick<WriteStream, 'write'> & Partial<Pick<WriteStream, 'isTTY' | 'columns'>>;

/** Lines may come from a tool or a guest: they are escaped and cut. */
export function createProgress(out: Output = process.stdout): Progress {
  const begun = performance.now();
  let last = '';
  return {
    show(line) {
      if (line === last) return;
      last = line;
      const elapsed = elapsedText(Math.round((performance.now() - begun) / 1000));
      const text = printable(`berth: ${line}`, longestLine);
      if (out.isTTY !== true) {
        out.write(`${text}${elapsed}\n`);
        return;
      }
      // Shorter than the terminal is wide: `\r` returns to the start of the last row only, so of a line that wraps the
      // rows above, with an earlier time, would remain.
      const room = (out.columns ?? 80) - 1 - elapsed.length;
      out.write(`\r\x1b[K${text.slice(0, Math.max(0, room))}${elapsed}`);
    },
    end() {
      if (last !== '' && out.isTTY === true) out.write('\n');
    },
  };
}
