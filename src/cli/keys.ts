import { readFile, stat } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { masterKeyFile } from '../config/secrets.ts';
import type { Settings } from '../config/settings.ts';
import type { MasterKeyState } from '../core/ports/master-keys.ts';
import { createMasterKeyText, masterKeyFromText } from '../secrets/master-key.ts';
import { askMgmt, MgmtError } from './mgmt-client.ts';
import { type Column, printTable } from './table.ts';
import { printLine } from '../lib/terminal.ts';
import { writeFileAtomically } from '../lib/write-file-atomically.ts';

/** As JSON carries it. */
type KeyLine = Omit<MasterKeyState, 'since'> & { readonly since: string };

const columns: readonly Column<KeyLine>[] = [
  ['KEY', ({ id }) => id],
  ['STATE', ({ state }) => state],
  ['SINCE', ({ since }) => since.slice(0, 19)],
  ['DAMAGED', ({ unreadable }) => (unreadable === undefined ? '' : `${unreadable} rows: see the log`)],
];
const pollEveryMs = 1_000;

/** `berth keys list`: the master keys by their ids, the newest first. */
export async function runKeysList(settings: Settings): Promise<void> {
  printTable(columns, await list(settings));
}

/**
 * `berth keys rotate`: adds a new key to the master key file, makes the broker use it, and waits until all secrets
 * are rewrapped. If it is interrupted, the broker continues in the background; a second call waits for it.
 */
export async function runKeysRotate(settings: Settings): Promise<void> {
  const file = masterKeyFile(settings);
  const known = new Set((await list(settings)).map(({ id }) => id));
  const lines = await readLines(file);
  // A rotation that was refused left its key in the file; it is used now.
  if (lines.every((line) => known.has(idOf(line)))) await writeLines(file, [...lines, createMasterKeyText()]);
  await askMgmt(settings, '/mgmt/keys/rotate', 'POST');
  printLine('The new master key is in use. Rewrapping secrets of the former key ...');
  while ((await list(settings)).some(({ state }) => state === 'retiring')) await delay(pollEveryMs);
  printLine('Only database backups made before now still need the former key.');
  printLine(`Back up ${file}, then remove the former key from it: berth keys prune`);
}

/** `berth keys prune`: removes retired keys from the master key file. */
export async function runKeysPrune(settings: Settings): Promise<void> {
  const file = masterKeyFile(settings);
  const retired = new Set(
    (await list(settings)).filter(({ state }) => state === 'retired').map(({ id }) => id),
  );
  const lines = await readLines(file);
  const remaining = lines.filter((line) => !retired.has(idOf(line)));
  if (remaining.length < lines.length) await writeLines(file, remaining);
  printLine(`Retired keys removed from ${file}: ${lines.length - remaining.length}.`);
}

async function list(settings: Settings): Promise<readonly KeyLine[]> {
  return (await askMgmt<{ keys: KeyLine[] }>(settings, '/mgmt/keys')).keys;
}

const idOf = (line: string) => masterKeyFromText(line).id.toString('hex');

async function readLines(file: string): Promise<string[]> {
  const text = await readFile(file, 'utf8').catch((cause: unknown) => {
    throw new MgmtError(`${file} can't be read: run this as the broker's user on its node`, { cause });
  });
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'));
}

/** Preserves owner and mode of the file. */
async function writeLines(file: string, lines: readonly string[]): Promise<void> {
  const { uid, gid, mode } = await stat(file);
  await writeFileAtomically(file, `${lines.join('\n')}\n`, { owner: { uid, gid }, mode: mode & 0o777 });
}
