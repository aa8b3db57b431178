import { readFile } from 'node:fs/promises';
import type { HighestMark } from '../core/ports/database-history.ts';
import { writeFileAtomically } from '../lib/write-file-atomically.ts';

/**
 * A file with the highest mark. Readable by everybody: api and gateway compare it with the database after they have
 * dropped root. An unreadable one counts as none: the history is then compared by its name only.
 */
export function createHighestMark(file: string): HighestMark {
  return {
    async read() {
      const text = await readFile(file, 'utf8').catch((error: unknown) => {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
        throw error;
      });
      return /^\d{1,15}\n$/.test(text) ? Number(text) : 0;
    },
    // It is written every second; a power cut may leave a former one.
    write: (mark) => writeFileAtomically(file, `${mark}\n`, { mode: 0o644, durable: false }),
  };
}
