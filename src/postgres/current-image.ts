import type { Knex } from 'knex';
import type { CurrentImageRecord, KnownImageVersion } from '../core/ports/current-image.ts';
import { channels } from './channels.ts';
import { type Listener, onChange } from './listener.ts';

/** How soon another version is noticed if its notification or a read fails. Milliseconds. */
const defaultRereadMs = 5_000;

export function createCurrentImageRecord(database: Knex): CurrentImageRecord {
  return {
    async read() {
      const row = await database<{ image_version: string | null }>('installation').first('image_version');
      return row?.image_version ?? undefined;
    },
    async write(version) {
      await database.raw(
        `WITH changed AS (UPDATE installation SET image_version = :version
           WHERE image_version IS DISTINCT FROM :version RETURNING image_version)
         SELECT pg_notify('${channels.image}', image_version) FROM changed`,
        { version },
      );
    },
  };
}

/** Reads the version, and reads it again after each notification and periodically. A failed read changes nothing. */
export async function trackImageVersion(deps: {
  readonly image: Pick<CurrentImageRecord, 'read'>;
  readonly listener: Listener;
  readonly onError: (error: unknown) => void;
  readonly everyMs?: number;
}): Promise<KnownImageVersion> {
  const { image, listener, onError, everyMs = defaultRereadMs } = deps;
  let version = await image.read();
  let stopped = false;
  const reread = () => {
    image.read().then(
      (read) => {
        version = read;
      },
      (error: unknown) => {
        if (!stopped) onError(error);
      },
    );
  };
  const unsubscribe = onChange(listener, channels.image, reread);
  const timer = setInterval(reread, everyMs);
  return {
    current: () => version,
    stop() {
      stopped = true;
      clearInterval(timer);
      unsubscribe();
    },
  };
}
