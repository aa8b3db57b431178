import type { Channel } from './channels.ts';
import type { Listener } from './listener.ts';

/** Looks again at least this often, in case a notification was lost with its sender. */
const lookAgainMs = 1_000;

/**
 * Waits until `look` gives something else than undefined: it looks at once, whenever the channel speaks of
 * this id, and after every reconnection.
 * @returns undefined where nothing came within `forMs` milliseconds.
 */
export async function waitFor<T>(
  listener: Listener,
  channel: Channel,
  isMeant: (id: string) => boolean,
  look: () => Promise<T | undefined>,
  forMs: number,
): Promise<T | undefined> {
  const until = performance.now() + forMs;
  let wake: () => void = () => undefined;
  let woken = false;
  const nudge = () => {
    woken = true;
    wake();
  };
  const ends = [
    listener.on(channel, (id) => {
      if (isMeant(id)) nudge();
    }),
    listener.onReconnected(nudge),
  ];
  try {
    for (;;) {
      woken = false;
      const found = await look();
      if (found !== undefined) return found;
      const left = until - performance.now();
      if (left <= 0) return undefined;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, Math.min(left, lookAgainMs));
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
        // It may have spoken while we looked.
        if (woken) wake();
      });
    }
  } finally {
    for (const end of ends) end();
  }
}
