import { createReadStream } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createGzip } from 'node:zlib';
import { errorMessage } from '../../lib/error-message.ts';
import { exists } from '../../lib/exists.ts';
import { createLineReader } from '../../lib/line-reader.ts';
import { renameDurably } from '../../lib/write-file-atomically.ts';

/** A backup can't be written, read or restored; the message has the remedy. */
export class BackupError extends Error {
  override readonly name = 'BackupError';
}

/** The first line of a backup. */
export interface BackupHeader {
  readonly format: 'berth-backup';
  readonly version: 1;
  /** ISO 8601. */
  readonly createdAt: string;
  readonly installation: { readonly id: string; readonly site: string };
  /** Ids of the master keys that its secrets are sealed with. */
  readonly masterKeys: readonly string[];
  /** The migrations that made its tables, in the order in which they ran. */
  readonly migrations: readonly string[];
}

/**
 * What follows the header, in a gzip file with a line each: for each table its columns, then batches of its rows. A row is
 * an array of its values as Postgres writes them as text. The last line says that the backup is whole.
 */
export type BackupRecord =
  | { readonly kind: 'table'; readonly name: string; readonly columns: readonly string[] }
  /** JSON: an array of rows. */
  | { readonly kind: 'rows'; readonly json: string }
  | { readonly kind: 'end'; readonly rows: number };

/** In bytes; a batch of the largest rows is far smaller. */
const longestLine = 256 * 1024 * 1024;

/**
 * Writes a backup, readable by its owner only. The file appears when it is whole.
 * @throws BackupError if the file exists.
 */
export async function writeBackupFile(
  file: string,
  content: AsyncIterable<BackupHeader | BackupRecord>,
): Promise<void> {
  if (await exists(file)) throw new BackupError(`${file} exists: name another file.`);
  const unfinished = `${file}.unfinished`;
  await rm(unfinished, { force: true });
  const handle = await open(unfinished, 'wx', 0o600);
  try {
    async function* lines(): AsyncGenerator<string> {
      for await (const record of content) {
        yield `${'kind' in record && record.kind === 'rows' ? record.json : JSON.stringify(record)}\n`;
      }
    }
    await pipeline(lines(), createGzip(), handle.createWriteStream({ flush: true }));
    await renameDurably(unfinished, file);
  } catch (error) {
    await handle.close().catch(() => undefined);
    await rm(unfinished, { force: true });
    throw error;
  }
}

/** Reads the first line. @throws BackupError if this is not a backup that this version of Berth can read. */
export async function readBackupHeader(file: string): Promise<BackupHeader> {
  for await (const line of linesOf(file)) {
    const header = parse(file, line) as Partial<BackupHeader> | null;
    if (header?.format !== 'berth-backup') break;
    if (header.version !== 1) {
      throw new BackupError(`${file} was written by a newer version of Berth: restore it with that version.`);
    }
    return header as BackupHeader;
  }
  throw new BackupError(`${file} is not a backup of Berth.`);
}

/** Reads what follows the header. @throws BackupError if the backup is damaged or not whole. */
export async function* readBackupRecords(file: string): AsyncGenerator<BackupRecord> {
  let isHeader = true;
  let hasEnded = false;
  for await (const line of linesOf(file)) {
    if (isHeader) isHeader = false;
    else if (line.startsWith('[')) yield { kind: 'rows', json: line };
    else {
      const record = parse(file, line) as BackupRecord;
      hasEnded = record.kind === 'end';
      yield record;
    }
  }
  if (!hasEnded) throw new BackupError(`${file} is not whole: its end is missing.`);
}

function parse(file: string, line: string): unknown {
  try {
    return JSON.parse(line);
  } catch (cause) {
    throw new BackupError(`${file} is damaged, or is not a backup of Berth.`, { cause });
  }
}

async function* linesOf(file: string): AsyncGenerator<string> {
  const readLines = createLineReader({ line: longestLine, total: Infinity });
  const source = createReadStream(file);
  const chunks = createGunzip();
  source.on('error', (error) => chunks.destroy(error));
  source.pipe(chunks);
  try {
    for await (const chunk of chunks) yield* readLines(chunk as Buffer);
  } catch (cause) {
    if (cause instanceof BackupError) throw cause;
    throw new BackupError(`${file} can't be read as a backup of Berth: ${errorMessage(cause)}.`, { cause });
  } finally {
    source.destroy();
    chunks.destroy();
  }
}
