import { readdir } from 'node:fs/promises';
import path from 'node:path';

/**
 * Ids of the hosts whose files are in a state directory, made by any driver, without opening the driver: a start looks
 * before it changes anything. Half-made hosts included.
 */
export async function hostsInStateDirectory(stateDirectory: string): Promise<readonly string[]> {
  const folders = ['hosts', path.join('simulated', 'hosts')];
  const found = await Promise.all(
    folders.map((folder) =>
      readdir(path.join(stateDirectory, folder)).catch((error: unknown) => {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
        throw error;
      }),
    ),
  );
  return found.flat();
}
