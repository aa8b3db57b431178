import { readFile, stat } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { masterKeyFile } from '../config/secrets.ts';
import type { Settings } from '../config/settings.ts';
import type { MasterKeyState } from '../core/ports/master-keys.ts';
import { createMasterKeyText, masterKeyFromText } from '../secrets/master-key.ts';
import { askMgmt, MgmtError } from './mgmt-client.ts';
import { type Column, printTable } from './table.ts';
import { writeFileAtomically } from '../lib/write-file-atomically.ts';

/** As JSON carries it. */
type KeyLine = Omit<MasterKeyState, 'since'> & { readonly since: string };

const columns: readonly Column<KeyLine>[] = [
  ['KEY', ({ id }) => id],
  ['STATE', ({ state }) => state],
  ['SINCE', ({ since }) => since.slice(0, 19)],
  ['DAMAGED', ({ unreadable }) => (unreadable === undefined ? '' : `${unreadable} rows: see the log`)],
];
const askEveryMs = 1_000;

/** `berth keys list`: the master keys by their ids, the newest first. */
export async function runKeysList(settings: Settings): Promise<void> {
  printTable(columns, await list(settings));
}

/**
 * `berth keys rotate`: adds a new key to the master key file, has the broker take it into use, and waits until all
 * is wrapped anew. Ended in the middle, the broker goes on by itself; called again, it goes on from there.
 */
export async function runKeysRotate(settings: Settings): Promise<void> {
  const file = masterKeyFile(settings);
  const known = new Set((await list(settings)).map(({ id }) => id));
  const lines = await readLines(file);
  // A rotation that was refused has left its key there.
  if (lines.every((line) => known.has(idOf(line)))) await writeLines(file, [...lines, createMasterKeyText()]);
  await askMgmt(settings, '/mgmt/keys/rotate', 'POST');
  process.stdout.write('The new master key is in use. Wrapping anew what the former one has sealed ...\n');
  while ((await list(settings)).some(({ state }) => state === 'retiring')) await delay(askEveryMs);
  process.stdout.write(
    `Nothing needs the former key any more, but for backups of the database that were made until now.\nBack up ${file}, then take the former key out of it: berth keys prune\n`,
  );
}

/** `berth keys prune`: takes the keys that nothing is sealed with any more out of the master key file. */
export async function runKeysPrune(settings: Settings): Promise<void> {
  const file = masterKeyFile(settings);
  const retired = new Set(
    (await list(settings)).filter(({ state }) => state === 'retired').map(({ id }) => id),
  );
  const lines = await readLines(file);
  const kept = lines.filter((line) => !retired.has(idOf(line)));
  if (kept.length < lines.length) await writeLines(file, kept);
  process.stdout.write(`${lines.length - kept.length} former keys were taken out of ${file}.\n`);
}

async function list(settings: Settings): Promise<readonly KeyLine[]> {
  return (await askMgmt<{ keys: KeyLine[] }>(settings, '/mgmt/keys')).keys;
}

const idOf = (line: string) => masterKeyFromText(line).id.toString('hex');

async function readLines(file: string): Promise<string[]> {
  const text = await readFile(file, 'utf8').catch((cause: unknown) => {
    throw new MgmtError(`${file} can't be read: run this as the broker's user on its machine`, { cause });
  });
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'));
}

/** Keeps owner and mode of the file. */
async function writeLines(file: string, lines: readonly string[]): Promise<void> {
  const { uid, gid, mode } = await stat(file);
  await writeFileAtomically(file, `${lines.join('\n')}\n`, { owner: { uid, gid }, mode: mode & 0o777 });
}
