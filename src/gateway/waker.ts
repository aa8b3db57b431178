import type { LiveBinding } from '../core/live-bindings.ts';

/** Has hosts woken that sleep. */
export interface Waker {
  /**
   * Asks for the host to be woken and waits until it is.
   * @returns false where it was not within the time that a client is made to wait.
   */
  wake(hostId: string): Promise<boolean>;
  /** A binding was read: its host may be awake. */
  heard(binding: LiveBinding): void;
}

/** Asked for again so often, should a request have been lost. Milliseconds. */
const askAgainMs = 500;

/**
 * @param parts.ask tells the worker that the host is wanted.
 * @param parts.timeoutMs longest wait.
 */
export function createWaker(parts: { ask: (hostId: string) => Promise<void>; timeoutMs: number }): Waker {
  const waiting = new Map<string, { over: Promise<boolean>; end: (awake: boolean) => void }>();

  function begin(hostId: string): Promise<boolean> {
    let end: (awake: boolean) => void = () => undefined;
    const over = new Promise<boolean>((resolve) => {
      end = resolve;
    });
    const ask = () => {
      // It is asked again soon, and the client's wait is bounded.
      parts.ask(hostId).catch(() => undefined);
    };
    const asking = setInterval(ask, askAgainMs);
    const patience = setTimeout(() => {
      end(false);
    }, parts.timeoutMs);
    waiting.set(hostId, { over, end });
    ask();
    return over.finally(() => {
      clearInterval(asking);
      clearTimeout(patience);
      waiting.delete(hostId);
    });
  }

  return {
    wake: (hostId) => waiting.get(hostId)?.over ?? begin(hostId),
    heard({ hostId, asleep }) {
      if (!asleep) waiting.get(hostId)?.end(true);
    },
  };
}
