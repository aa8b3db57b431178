import { randomUUID } from 'node:crypto';
import { open, rename, rm } from 'node:fs/promises';
import path from 'node:path';

export interface AtomicWrite {
  /** Permission bits of the file, whatever the umask is. Default: 0600. */
  readonly mode?: number;
  /** Default: the user of this process. */
  readonly owner?: { readonly uid: number; readonly gid: number };
  /**
   * What a power cut after this returns leaves. `true` (default): this file, at the cost of two fsync calls. `content`:
   * this file or the previous one, whole, at the cost of one. `false`: on some file systems an empty one (XFS); it
   * survives a killed process only.
   */
  readonly durable?: boolean | 'content';
}

/**
 * Writes a file, or replaces it, whole or not at all: concurrent readers see the old content or the new one. The
 * temporary file in the same folder is `<file>.<uuid>.new`; a killed process leaves it behind.
 */
export async function writeFileAtomically(
  file: string,
  content: string,
  { mode = 0o600, owner, durable = true }: AtomicWrite = {},
): Promise<void> {
  const temporary = `${file}.${randomUUID()}.new`;
  try {
    // Private until it has its owner: the content may be a secret.
    const handle = await open(temporary, 'wx', 0o600);
    try {
      await handle.writeFile(content);
      if (owner !== undefined) await handle.chown(owner.uid, owner.gid);
      await handle.chmod(mode);
      if (durable !== false) await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  if (durable === true) await syncFolder(path.dirname(file));
}

/** Flushes a folder to the disk: what was made, renamed or removed in it survives a power cut (fsync(2)). */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
