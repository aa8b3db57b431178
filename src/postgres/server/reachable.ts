import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';

/** Time between attempts, and of each of them, in milliseconds. */
const retryMs = 500;
const connectTimeoutMs = 5_000;

/**
 * Errors of a server that may come up: nothing listens yet, or it starts or stops (PostgreSQL manual, appendix A,
 * class 57). Waiting does not help against others, such as a wrong password.
 */
const transientCodes = new Set([
  ...['ECONNREFUSED', 'ECONNRESET', 'ENOENT', 'ETIMEDOUT', 'EHOSTUNREACH', 'ENETUNREACH', 'EAI_AGAIN'],
  ...['57P01', '57P02', '57P03'],
]);

/**
 * Waits until Postgres accepts a connection.
 * @param options.onWaiting is called once, if the first attempt fails.
 * @param options.timeoutMs how long to retry, in milliseconds.
 * @throws Error of the last attempt: after the time-out, or at once if waiting does not help.
 */
export async function waitUntilReachable(
  connectionString: string,
  options: { timeoutMs: number; onWaiting: (error: Error) => void },
): Promise<void> {
  const deadline = performance.now() + options.timeoutMs;
  for (let attempt = 1; ; attempt += 1) {
    const error = await tryOnce(connectionString);
    if (error === undefined) return;
    if (!transientCodes.has((error as NodeJS.ErrnoException).code ?? '') || performance.now() > deadline)
      throw error;
    if (attempt === 1) options.onWaiting(error);
    await delay(retryMs);
  }
}

async function tryOnce(connectionString: string): Promise<Error | undefined> {
  const client = new pg.Client({ connectionString, connectionTimeoutMillis: connectTimeoutMs });
  // The attempt itself reports the error.
  client.on('error', () => undefined);
  try {
    await client.connect();
    return undefined;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  } finally {
    await client.end().catch(() => undefined);
  }
}
