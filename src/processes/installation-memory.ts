import { chown, mkdir } from 'node:fs/promises';
import path from 'node:path';
import type { Settings } from '../config/settings.ts';
import { userIds } from '../config/users.ts';
import type { HighestMark } from '../core/ports/database-history.ts';
import { createHighestMark } from '../history/highest-mark.ts';
import { type JournalFiles, openRevocationJournal } from '../history/revocation-journal.ts';
import type { Logger } from '../lib/logger.ts';

/** What the installation remembers in its state directory, in case Postgres loses its last transactions. */
export const highestMark = ({ stateDirectory }: Settings): HighestMark =>
  createHighestMark(path.join(stateDirectory, 'database-mark'));

const writers = ['api', 'worker'] as const;

export const journalFolder = ({ stateDirectory }: Settings, writer: (typeof writers)[number]) =>
  path.join(stateDirectory, 'revocations', writer);

/** The journals of all processes on this node; only root can read them all. */
export const journalFolders = (settings: Settings) =>
  writers.map((writer) => journalFolder(settings, writer));

/** To be called before root is dropped: the folder is made for the user that the process will be. */
export async function openJournal(
  settings: Settings,
  writer: (typeof writers)[number],
  logger: Logger,
): Promise<JournalFiles> {
  const folder = journalFolder(settings, writer);
  await mkdir(path.dirname(folder), { recursive: true, mode: 0o755 });
  await mkdir(folder, { recursive: true, mode: 0o700 });
  if (writer === 'api' && process.getuid?.() === 0) {
    const { api } = userIds(settings.uidBase);
    await chown(folder, api, api);
  }
  return openRevocationJournal(folder, { logger });
}
