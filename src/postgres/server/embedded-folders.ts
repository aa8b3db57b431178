import path from 'node:path';
import type { Settings } from '../../config/settings.ts';
import type { EmbeddedPostgresOptions } from './embedded.ts';

/** The folders of the embedded server. Paths of Unix sockets must be short, and only root can write to /run. */
export function embeddedFolders({ stateDirectory }: Settings, site: string): EmbeddedPostgresOptions {
  const run = process.getuid?.() === 0 ? `/run/berth-${site}` : path.join(stateDirectory, 'run');
  return { directory: path.join(stateDirectory, 'postgres'), socketDirectory: path.join(run, 'postgres') };
}
