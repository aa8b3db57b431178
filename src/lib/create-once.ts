import { randomUUID } from 'node:crypto';
import { chmod, link, rm, writeFile } from 'node:fs/promises';
import { exists } from './exists.ts';

/**
 * Creates a file that only its owner can read, unless it exists: whole or not at all. If several callers start at
 * once, in one process or in many, all of them read what the first one wrote.
 * @param make returns the text of a new file; it is discarded if another caller was first.
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
