import type { LiveBinding } from '../core/ports/live-bindings.ts';

/** The host is awake; it wasn't within the client's longest wait; or the node lacks the memory for it. */
export type WakeOutcome = 'awake' | 'host-asleep' | 'no-room';

/** Wakes paused and suspended hosts on demand. */
export interface Waker {
  /** Requests a wake of the binding's host, and waits until the host is awake or the wake is refused. */
  wake(binding: LiveBinding): Promise<WakeOutcome>;
  /** A binding was read: its host may be awake, or its wake refused. */
  bindingRead(binding: LiveBinding): void;
}

/** The request is repeated at this interval, since one may be lost. Milliseconds. */
const repeatEveryMs = 500;

interface PendingWake {
  readonly outcome: Promise<WakeOutcome>;
  /** Time of the last refusal before this wake was requested. Unix milliseconds. */
  readonly refusedBefore: number | undefined;
  readonly resolve: (outcome: WakeOutcome) => void;
}

/**
 * @param deps.requestWake asks the worker to wake a host.
 * @param deps.timeoutMs longest wait of a client.
 */
export function createWaker(deps: {
  requestWake: (hostId: string) => Promise<void>;
  timeoutMs: number;
}): Waker {
  /** By host id: clients of one host share its wake. */
  const pending = new Map<string, PendingWake>();

  function start({ hostId, wakeRefusedAt }: LiveBinding): Promise<WakeOutcome> {
    let resolve: (outcome: WakeOutcome) => void = () => undefined;
    const outcome = new Promise<WakeOutcome>((resolvePromise) => {
      resolve = resolvePromise;
    });
    const request = () => {
      // An error is ignored: the request is repeated, and the client's wait is limited.
      deps.requestWake(hostId).catch(() => undefined);
    };
    const repeat = setInterval(request, repeatEveryMs);
    const timeout = setTimeout(() => {
      resolve('host-asleep');
    }, deps.timeoutMs);
    pending.set(hostId, { outcome, refusedBefore: wakeRefusedAt?.getTime(), resolve });
    request();
    return outcome.finally(() => {
      clearInterval(repeat);
      clearTimeout(timeout);
      pending.delete(hostId);
    });
  }

  return {
    wake: (binding) => pending.get(binding.hostId)?.outcome ?? start(binding),
    bindingRead({ hostId, asleep, wakeRefusedAt }) {
      const wake = pending.get(hostId);
      if (!asleep) wake?.resolve('awake');
      else if (wakeRefusedAt !== undefined && wakeRefusedAt.getTime() !== wake?.refusedBefore)
        wake?.resolve('no-room');
    },
  };
}
