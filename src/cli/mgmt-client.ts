import { readFile } from 'node:fs/promises';
import { credentialsPath } from '../config/secrets.ts';
import type { Settings } from '../config/settings.ts';

/** A request to the management API failed; the message names the remedy. */
export class MgmtError extends Error {
  override readonly name = 'MgmtError';
}

const defaultTimeoutMs = 10_000;

/**
 * Sends a request to the management API of the broker on this node.
 * @returns the answer's JSON, also for a 503: the health endpoint lists problems that way.
 * @throws MgmtError with the broker's description if it refuses the request.
 */
export async function askMgmt<T>(
  settings: Settings,
  path: string,
  method: 'GET' | 'PUT' | 'POST' | 'DELETE' = 'GET',
  timeoutMs = defaultTimeoutMs,
): Promise<T> {
  const file = credentialsPath(settings);
  const text = await readFile(file, 'utf8').catch((cause: unknown) => {
    throw new MgmtError(
      `${file} can't be read: run this as the broker's user with its BERTH_STATE_DIR, after the broker's first start`,
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
    throw new MgmtError(`No broker answers at ${url}: start it with npm start.`, { cause });
  });
  if (!answer.ok && answer.status !== 503) {
    const refusal = (await answer.json().catch(() => ({}))) as { description?: unknown };
    throw new MgmtError(
      answer.status === 401 || typeof refusal.description !== 'string'
        ? `${url} answered ${answer.status}: check that the settings here are those of the broker.`
        : refusal.description,
    );
  }
  return (await answer.json()) as T;
}
