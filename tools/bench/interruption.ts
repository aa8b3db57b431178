import { errorMessage } from '../../src/lib/error-message.ts';
/** What must be put away where a bench is interrupted, in the order in which it was made. */
const acts = new Set<() => Promise<void>>();
let isHeard = false;

/**
 * Makes what puts something away, for whoever made it, and for SIGINT and SIGTERM: all that is left is put away
 * then, the youngest first, and this process ends with status 130. It is done once, however often it is asked for.
 */
export function putAwayOnce(act: () => Promise<void>): () => Promise<void> {
  let done: Promise<void> | undefined;
  const once = () => (done ??= act().finally(() => acts.delete(once)));
  acts.add(once);
  if (!isHeard) {
    isHeard = true;
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void putAllAway());
  }
  return once;
}

async function putAllAway(): Promise<never> {
  for (const act of [...acts].reverse()) {
    await act().catch((error: unknown) => {
      process.stderr.write(`bench: ${errorMessage(error)}\n`);
    });
  }
  process.exit(130);
}
