import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import type { OwnerNote, OwnerNotes } from '../core/ports/host-differences.ts';
import { writeFileAtomically } from '../lib/write-file-atomically.ts';

const suffix = '.json';

/** Files `owners/HOST.json` in the state directory. */
export function createOwnerNotes(stateDirectory: string): OwnerNotes {
  const directory = path.join(stateDirectory, 'owners');
  const fileOf = (hostId: string) => path.join(directory, `${hostId}${suffix}`);
  /** What this process has written: a connect that changes nothing writes nothing. */
  const written = new Map<string, string>();

  return {
    async write(note) {
      const { hostId } = note.spec;
      const text = JSON.stringify(note);
      if (written.get(hostId) === text) return;
      await mkdir(directory, { recursive: true, mode: 0o700 });
      // It is for the loss of the database, not of the node, so a create doesn't wait for the disk.
      await writeFileAtomically(fileOf(hostId), text, { durable: false });
      written.set(hostId, text);
    },

    async read(hostId) {
      const text = await readFile(fileOf(hostId), 'utf8').catch(() => undefined);
      try {
        const note = text === undefined ? undefined : (JSON.parse(text) as OwnerNote | null);
        return note?.spec.hostId === hostId ? note : undefined;
      } catch {
        return undefined;
      }
    },

    async hostIds() {
      const names = await readdir(directory).catch(() => []);
      return names.flatMap((name) => (name.endsWith(suffix) ? [name.slice(0, -suffix.length)] : []));
    },

    async delete(hostId) {
      written.delete(hostId);
      await rm(fileOf(hostId), { force: true });
    },
  };
}
