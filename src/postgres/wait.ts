import type { Channel } from './channels.ts';
import type { Listener } from './listener.ts';

/** Polls at least this often, in case a notification was lost with its sender. */
const pollMs = 1_000;

/**
 * Waits until `read` returns something else than undefined. It reads at once, after each notification with a matching
 * id, after every reconnection, and every {@link pollMs}.
 * @returns undefined after `timeoutMs` milliseconds.
 */
export async function waitForNotification<T>(
  listener: Listener,
  channel: Channel,
  matches: (id: string) => boolean,
  read: () => Promise<T | undefined>,
  timeoutMs: number,
): Promise<T | undefined> {
  const deadline = performance.now() + timeoutMs;
  let wake: () => void = () => undefined;
  let woken = false;
  const onEvent = () => {
    woken = true;
    wake();
  };
  const unsubscribes = [
    listener.on(channel, (id) => {
      if (matches(id)) onEvent();
    }),
    listener.onReconnected(onEvent),
  ];
  try {
    for (;;) {
      woken = false;
      const found = await read();
      if (found !== undefined) return found;
      const left = deadline - performance.now();
      if (left <= 0) return undefined;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, Math.min(left, pollMs));
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
        // A notification may have come during the read.
        if (woken) wake();
      });
    }
  } finally {
    for (const unsubscribe of unsubscribes) unsubscribe();
  }
}
