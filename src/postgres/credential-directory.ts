import type { Knex } from 'knex';
import type { CredentialDirectory, KnownCredential } from '../core/ports/platforms.ts';
import { channels } from './channels.ts';
import { type Listener, onChange } from './listener.ts';

/** How long a retired password can stay valid if the listener's connection is dead and this is not detected yet. */
const defaultRereadMs = 5_000;

/**
 * Reads the credentials of all platforms, and reads them again after each notification and periodically.
 * @param deps.fixed come from files, and always stay valid.
 */
export async function createCredentialDirectory(deps: {
  database: Knex;
  listener: Listener;
  fixed: readonly KnownCredential[];
  onError: (error: unknown) => void;
  everyMs?: number;
}): Promise<CredentialDirectory> {
  const { database, listener, fixed, onError, everyMs = defaultRereadMs } = deps;
  let known = fixed;
  let newest = 0;
  let stopped = false;

  async function read(): Promise<void> {
    newest += 1;
    const mine = newest;
    const rows: { digest: Buffer; id: string; name: string }[] = await database('platform_passwords')
      .join('platforms', 'platforms.id', 'platform_passwords.platform_id')
      .select('digest', 'platforms.id', 'name');
    // A slower read that began earlier must not restore a retired password.
    if (mine === newest) {
      known = [...fixed, ...rows.map(({ digest, id, name }) => ({ digest, platform: { id, name } }))];
    }
  }

  await read();
  const reread = () => {
    read().catch((error: unknown) => {
      if (!stopped) onError(error);
    });
  };
  const unsubscribe = onChange(listener, channels.platforms, reread);
  const timer = setInterval(reread, everyMs);
  return {
    known: () => known,
    stop() {
      stopped = true;
      clearInterval(timer);
      unsubscribe();
    },
  };
}
