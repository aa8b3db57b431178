import type { LiveBinding } from '../core/ports/live-bindings.ts';

/** Awake; or not within the time that a client is made to wait; or refused, as the machine has no memory for it. */
export type WakeOutcome = 'awake' | 'host-asleep' | 'no-room';

/** Has hosts woken that sleep. */
export interface Waker {
  /** Asks for the binding's host to be woken and waits until that is met or refused. */
  wake(binding: LiveBinding): Promise<WakeOutcome>;
  /** A binding was read: its host may be awake, or its wake refused. */
  heard(binding: LiveBinding): void;
}

/** Asked for again so often, should a request have been lost. Milliseconds. */
const askAgainMs = 500;

/**
 * @param parts.ask tells the worker that the host is wanted.
 * @param parts.timeoutMs longest wait.
 */
export function createWaker(parts: { ask: (hostId: string) => Promise<void>; timeoutMs: number }): Waker {
  const waiting = new Map<
    string,
    { over: Promise<WakeOutcome>; refusedBefore: number | undefined; end: (outcome: WakeOutcome) => void }
  >();

  function begin({ hostId, wakeRefusedAt }: LiveBinding): Promise<WakeOutcome> {
    let end: (outcome: WakeOutcome) => void = () => undefined;
    const over = new Promise<WakeOutcome>((resolve) => {
      end = resolve;
    });
    const ask = () => {
      // It is asked again soon, and the client's wait is bounded.
      parts.ask(hostId).catch(() => undefined);
    };
    const asking = setInterval(ask, askAgainMs);
    const patience = setTimeout(() => {
      end('host-asleep');
    }, parts.timeoutMs);
    waiting.set(hostId, { over, refusedBefore: wakeRefusedAt?.getTime(), end });
    ask();
    return over.finally(() => {
      clearInterval(asking);
      clearTimeout(patience);
      waiting.delete(hostId);
    });
  }

  return {
    wake: (binding) => waiting.get(binding.hostId)?.over ?? begin(binding),
    heard({ hostId, asleep, wakeRefusedAt }) {
      const one = waiting.get(hostId);
      if (!asleep) one?.end('awake');
      else if (wakeRefusedAt !== undefined && wakeRefusedAt.getTime() !== one?.refusedBefore)
        one?.end('no-room');
    },
  };
}
