import type { WriteStream } from 'node:tty';

/** Shows how far long work is: one line that changes on a terminal, a line a change in a log. */
export interface Progress {
  show(line: string): void;
  end(): void;
}

export function createProgress(out: NodeJS.WriteStream | WriteStream): Progress {
  const begun = performance.now();
  let last = '';
  return {
    show(line) {
      if (line === last) return;
      last = line;
      const seconds = Math.round((performance.now() - begun) / 1000);
      if (out.isTTY) out.write(`\r\x1b[Kberth: ${line} (${seconds} s)`);
      else out.write(`berth: ${line} (${seconds} s)\n`);
    },
    end() {
      if (last !== '' && out.isTTY) out.write('\n');
    },
  };
}
