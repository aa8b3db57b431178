import { errorMessage } from '../../../src/lib/error-message.ts';

/** Cleanups that have not run yet, in the order of registration. */
const pending = new Set<() => Promise<void>>();
let handlesSignals = false;

/**
 * Registers a cleanup that also runs on SIGINT and SIGTERM: then all pending ones run, the newest first, and the
 * process exits with 130.
 * @returns the cleanup, which runs only once even if it is called again.
 */
export function registerCleanup(cleanup: () => Promise<void>): () => Promise<void> {
  let result: Promise<void> | undefined;
  const once = () => (result ??= cleanup().finally(() => pending.delete(once)));
  pending.add(once);
  if (!handlesSignals) {
    handlesSignals = true;
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void cleanUpAndExit());
  }
  return once;
}

async function cleanUpAndExit(): Promise<never> {
  for (const cleanup of [...pending].reverse()) {
    await cleanup().catch((error: unknown) => {
      process.stderr.write(`bench: cleanup failed: ${errorMessage(error)}\n`);
    });
  }
  process.exit(130);
}
