import { randomUUID } from 'node:crypto';
import { type FileHandle, open, readdir, readFile, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { crc32 } from 'node:zlib';
import type { Revocation, RevocationJournal } from '../core/ports/database-history.ts';
import type { Logger } from '../lib/logger.ts';
import { syncFolder } from '../lib/write-file-atomically.ts';

const suffix = '.journal';
const dayMs = 24 * 3600 * 1000;
/** A file is not added to after this time; so one that has been left alone for two of them is complete. Milliseconds. */
const fileAgeMs = dayMs;
/** Size at which a file is complete, in bytes: about 19,000 revocations. */
const fileBytes = 1024 * 1024;
/** Of all files of a folder, in bytes: more than a million revocations. The oldest files are removed beyond it. */
const defaultMaxBytes = 64 * 1024 * 1024;

/**
 * Files of revocations in a folder, which only their process adds to; complete ones are never changed, but removed once
 * all their certificates have expired. Several processes may use one folder: each has its own file. What a kill or
 * a power cut leaves of a last line was never confirmed to anyone.
 */
export interface JournalFiles extends RevocationJournal {
  close(): Promise<void>;
}

/**
 * For revocations that end with their host: a full disk must not keep hosts from being deleted, and without its host a
 * binding leads nowhere.
 */
export const bestEffort = (journal: RevocationJournal): RevocationJournal => ({
  append: (revocations) => journal.append(revocations).catch(() => undefined),
});

/** @param folder exists, and this process may write in it, also after it has dropped root. */
export function openRevocationJournal(
  folder: string,
  deps: { readonly logger: Logger; readonly maxBytes?: number },
): JournalFiles {
  const { logger, maxBytes = defaultMaxBytes } = deps;
  let current: { handle: FileHandle; bytes: number; openedAt: number } | undefined;
  let waiting: { text: string; resolve: () => void; reject: (error: unknown) => void }[] = [];
  let writing: Promise<void> | undefined;

  async function openFile(): Promise<{ handle: FileHandle; bytes: number; openedAt: number }> {
    const isComplete =
      current !== undefined && (current.bytes >= fileBytes || Date.now() - current.openedAt >= fileAgeMs);
    if (isComplete) await closeFile();
    if (current !== undefined) return current;
    await removeOldFiles(folder, maxBytes, logger);
    const name = `${new Date().toISOString().replaceAll(':', '-')}-${randomUUID()}${suffix}`;
    const handle = await open(path.join(folder, name), 'ax', 0o600);
    current = { handle, bytes: 0, openedAt: Date.now() };
    await syncFolder(folder);
    return current;
  }

  async function closeFile(): Promise<void> {
    const { handle } = current ?? {};
    current = undefined;
    await handle?.close();
  }

  /** All that wait share one write and one fsync; those that come meanwhile share the next. */
  async function writeAll(): Promise<void> {
    while (waiting.length > 0) {
      const batch = waiting;
      waiting = [];
      const text = batch.map((one) => one.text).join('');
      try {
        const file = await openFile();
        await file.handle.appendFile(text);
        await file.handle.datasync();
        file.bytes += text.length;
        for (const { resolve } of batch) resolve();
      } catch (error) {
        // It may end in half a line, so the next write begins another file.
        await closeFile().catch(() => undefined);
        logger.error({ folder, err: error }, 'Revocations could not be written to the journal');
        for (const { reject } of batch) reject(error);
      }
    }
  }

  return {
    append(revocations) {
      if (revocations.length === 0) return Promise.resolve();
      return new Promise((resolve, reject) => {
        waiting.push({ text: revocations.map(toLine).join(''), resolve, reject });
        writing ??= writeAll().finally(() => {
          writing = undefined;
        });
      });
    },
    async close() {
      await writing;
      await closeFile();
    },
  };
}

/**
 * Reads the revocations whose certificates have not expired, file by file.
 * @param onDamaged is called for a file with unreadable lines, other than half a line at its end, or that can't be read.
 */
export async function* readRevocations(
  folder: string,
  onDamaged: (file: string, why: string) => void,
): AsyncGenerator<readonly Revocation[]> {
  for (const file of await journalFiles(folder)) {
    const found = await readJournalFile(file).catch((error: unknown) => {
      // Removed meanwhile, since all its certificates have expired.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') onDamaged(file, String(error));
      return undefined;
    });
    if (found === undefined) continue;
    if (found.unreadable > 0) onDamaged(file, `${found.unreadable} lines are damaged`);
    const now = Date.now();
    const live = found.revocations.filter(({ expiresAt }) => expiresAt.getTime() > now);
    if (live.length > 0) yield live;
  }
}

async function readJournalFile(
  file: string,
): Promise<{ readonly revocations: readonly Revocation[]; readonly unreadable: number }> {
  const lines = (await readFile(file, 'utf8')).split('\n');
  // Empty, or half a line.
  lines.pop();
  const revocations = lines.map(fromLine).filter((one) => one !== undefined);
  return { revocations, unreadable: lines.length - revocations.length };
}

/** Oldest first: names begin with the time. */
async function journalFiles(folder: string): Promise<readonly string[]> {
  const names = await readdir(folder).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  });
  return names
    .filter((name) => name.endsWith(suffix))
    .sort()
    .map((name) => path.join(folder, name));
}

async function removeOldFiles(folder: string, maxBytes: number, logger: Logger): Promise<void> {
  let bytes = 0;
  for (const file of [...(await journalFiles(folder))].reverse()) {
    const { size, mtimeMs } = await stat(file).catch(() => ({ size: 0, mtimeMs: Date.now() }));
    bytes += size;
    const isComplete = Date.now() - mtimeMs > 2 * fileAgeMs;
    const isTooMuch = bytes > maxBytes;
    if (!isTooMuch && !(isComplete && (await hasExpired(file)))) continue;
    if (isTooMuch) {
      logger.warn(
        { file, maxBytes },
        'The revocation journal is full; its oldest file is removed, and a backup older than it must not be restored',
      );
    }
    await rm(file, { force: true });
  }
}

/** A file with damaged lines stays: nobody knows when their certificates expire. */
async function hasExpired(file: string): Promise<boolean> {
  const found = await readJournalFile(file).catch(() => undefined);
  return (
    found?.unreadable === 0 && found.revocations.every(({ expiresAt }) => expiresAt.getTime() < Date.now())
  );
}

/** A binding's id, the second in which its certificate expires, and the checksum of both. */
function toLine({ bindingId, expiresAt }: Revocation): string {
  const content = `${bindingId} ${Math.ceil(expiresAt.getTime() / 1000)}`;
  return `${content} ${checksum(content)}\n`;
}

function fromLine(line: string): Revocation | undefined {
  const [, content = '', bindingId = '', seconds, sum] =
    /^(([0-9a-f-]{36}) (\d{1,12})) ([0-9a-f]{8})$/.exec(line) ?? [];
  if (sum === undefined || sum !== checksum(content)) return undefined;
  return { bindingId, expiresAt: new Date(Number(seconds) * 1000) };
}

const checksum = (text: string) => crc32(text).toString(16).padStart(8, '0');
