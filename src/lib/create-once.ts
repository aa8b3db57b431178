import { randomUUID } from 'node:crypto';
import { link, open, rm } from 'node:fs/promises';
import path from 'node:path';
import { exists } from './exists.ts';
import { syncFolder } from './write-file-atomically.ts';

/**
 * Creates a file that only its owner can read, unless it exists: whole or not at all. If several callers start at
 * once, in one process or in many, all of them read what the first one wrote; so do those after a power cut.
 * @param make returns the text of a new file; it is discarded if another caller was first.
 */
export async function createOnce(file: string, make: () => string): Promise<void> {
  if (await exists(file)) return;
  const attempt = `${file}.${randomUUID()}`;
  try {
    const handle = await open(attempt, 'wx', 0o600);
    try {
      await handle.writeFile(make());
      await handle.chmod(0o600);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await link(attempt, file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    await rm(attempt, { force: true });
  }
  await syncFolder(path.dirname(file));
}
