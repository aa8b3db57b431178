import { randomUUID } from 'node:crypto';
import { open, readdir, rename, rm } from 'node:fs/promises';
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
  content: string | Uint8Array,
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

/**
 * Gives a complete file its name, or replaces the one that has it. A power cut leaves what was there before, or this file
 * with all of its content; once this returns, this file.
 */
export async function publishFile(attempt: string, file: string): Promise<void> {
  await flush(attempt);
  await renameDurably(attempt, file);
}

/** {@link publishFile} of a folder with all that is in it. Nothing but an empty folder may have the name. */
export async function publishFolder(attempt: string, folder: string): Promise<void> {
  for (const entry of await readdir(attempt, { recursive: true, withFileTypes: true })) {
    if (entry.isFile() || entry.isDirectory()) await flush(path.join(entry.parentPath, entry.name));
  }
  await flush(attempt);
  await renameDurably(attempt, folder);
}

/** Renames something whose content is on the disk, or does not matter, so that the new name survives a power cut. */
export async function renameDurably(from: string, to: string): Promise<void> {
  await rename(from, to);
  await syncFolder(path.dirname(to));
}

/** Flushes a folder to the disk: what was made, renamed or removed in it survives a power cut (fsync(2)). */
export const syncFolder = (folder: string): Promise<void> => flush(folder);

async function flush(fileOrFolder: string): Promise<void> {
  const handle = await open(fileOrFolder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
