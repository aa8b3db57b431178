import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';

/** Time between attempts, and for each of them, in milliseconds. */
const retryMs = 500;
const connectTimeoutMs = 5_000;

/**
 * What an attempt fails with where a server is about to come, or may be: nobody listens yet, or it still starts
 * or stops (Postgres: appendix A, class 57). Anything else, such as a wrong password, is not mended by waiting.
 */
const passing = new Set([
  ...['ECONNREFUSED', 'ECONNRESET', 'ENOENT', 'ETIMEDOUT', 'EHOSTUNREACH', 'ENETUNREACH', 'EAI_AGAIN'],
  ...['57P01', '57P02', '57P03'],
]);

/**
 * Waits until Postgres takes a connection.
 * @param options.onWaiting is told once, where the first attempt failed.
 * @param options.patienceMs how long to go on trying, in milliseconds.
 * @throws Error of the last attempt: at the end of patience, or at once where waiting does not help.
 */
export async function untilReachable(
  connectionString: string,
  options: { patienceMs: number; onWaiting: (error: Error) => void },
): Promise<void> {
  const deadline = performance.now() + options.patienceMs;
  for (let attempt = 1; ; attempt += 1) {
    const error = await tryOnce(connectionString);
    if (error === undefined) return;
    if (!passing.has((error as NodeJS.ErrnoException).code ?? '') || performance.now() > deadline)
      throw error;
    if (attempt === 1) options.onWaiting(error);
    await delay(retryMs);
  }
}

async function tryOnce(connectionString: string): Promise<Error | undefined> {
  const client = new pg.Client({ connectionString, connectionTimeoutMillis: connectTimeoutMs });
  // It is told by the attempt itself.
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
