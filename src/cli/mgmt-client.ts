import { readFile } from 'node:fs/promises';
import { credentialsPath } from '../config/secrets.ts';
import type { Settings } from '../config/settings.ts';

/** The management API could not be asked; the message says what to do. */
export class MgmtError extends Error {
  override readonly name = 'MgmtError';
}

const usualTimeoutMs = 10_000;

/**
 * Asks the management API of the broker on this machine.
 * @returns the answer's JSON, also of a 503: health tells its problems so.
 * @throws MgmtError with the broker's own words where it refuses.
 */
export async function askMgmt<T>(
  settings: Settings,
  path: string,
  method: 'GET' | 'PUT' | 'POST' | 'DELETE' = 'GET',
  timeoutMs = usualTimeoutMs,
): Promise<T> {
  const file = credentialsPath(settings);
  const text = await readFile(file, 'utf8').catch((cause: unknown) => {
    throw new MgmtError(
      `${file} can't be read: run this as the broker's user, with its BERTH_STATE_DIR, once it has been started`,
      { cause },
    );
  });
  const { mgmt } = JSON.parse(text) as { mgmt: { username: string; password: string } };
  const host = settings.mgmtAddress === '0.0.0.0' ? '127.0.0.1' : settings.mgmtAddress;
  const url = `http://${host.includes(':') ? `[${host}]` : host}:${settings.mgmtPort}${path}`;
  const answer = await fetch(url, {
    method,
    headers: {
      Authorization: `Basic ${Buffer.from(`${mgmt.username}:${mgmt.password}`).toString('base64')}`,
    },
    signal: AbortSignal.timeout(timeoutMs),
  }).catch((cause: unknown) => {
    throw new MgmtError(`no broker answers on ${url}: start it with npm start`, { cause });
  });
  if (!answer.ok && answer.status !== 503) {
    const refusal = (await answer.json().catch(() => ({}))) as { description?: string };
    throw new MgmtError(
      answer.status === 401 || refusal.description === undefined
        ? `${url} answered ${answer.status}: do the settings here and the broker's differ?`
        : refusal.description,
    );
  }
  return (await answer.json()) as T;
}
