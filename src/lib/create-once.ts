import { randomUUID } from 'node:crypto';
import { chmod, link, rm, writeFile } from 'node:fs/promises';
import { exists } from './exists.ts';

/**
 * Writes a file that only its owner can read, unless it is there: whole or not at all, and what one has written is
 * what all read, also where several start at once, in one process or in many.
 * @param make gives its text, where there is none yet; what it gave is thrown away where another was first.
 */
export async function createOnce(file: string, make: () => string): Promise<void> {
  if (await exists(file)) return;
  const attempt = `${file}.${randomUUID()}`;
  try {
    await writeFile(attempt, make(), { mode: 0o600, flag: 'wx' });
    await chmod(attempt, 0o600);
    await link(attempt, file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    await rm(attempt, { force: true });
  }
}
