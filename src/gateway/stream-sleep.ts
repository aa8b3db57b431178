import type net from 'node:net';
import type { WakeOutcome } from './waker.ts';

/** How a stream outlasts the sleep of its host: bytes from its client wait in the gateway, and wake the host. */
export interface StreamSleep {
  /** The host's power was read. */
  setAsleep(asleep: boolean): void;
  /** The client has sent bytes that are about to be written to the engine. */
  sent(): void;
  /** The engine has sent bytes. */
  answered(): void;
  /** The client's input has ended: ends that of the engine, once the host is awake. */
  end(): void;
}

/**
 * Bytes that the client sent this long before the gateway heard of the sleep, without an answer since, may have met a paused
 * engine: the host is woken for them. Milliseconds.
 */
const recentMs = 5_000;

/**
 * An end of the input wakes nobody: clients that close pooled connections send one too.
 * @param deps.engine a connected socket.
 * @param deps.keepAliveMs idle time before TCP keep-alive probes of an engine that is awake; a sleeping one answers none.
 * @param deps.onNotWoken the host could not be woken for bytes that the client has sent.
 */
export function createStreamSleep(deps: {
  engine: net.Socket;
  keepAliveMs: number;
  asleep: boolean;
  wake: () => Promise<WakeOutcome>;
  onNotWoken: (outcome: Exclude<WakeOutcome, 'awake'>) => void;
}): StreamSleep {
  const { engine } = deps;
  let asleep = false;
  let isWaking = false;
  let inputEnded = false;
  /** When the client sent bytes that the engine has not answered (`performance.now()`). */
  let unansweredSince: number | undefined;

  const isOpen = () => !engine.destroyed;
  const isWanted = () =>
    engine.writableLength > 0 ||
    (unansweredSince !== undefined && performance.now() - unansweredSince < recentMs);

  async function wakeIfWanted(): Promise<void> {
    if (isWaking) return;
    isWaking = true;
    while (asleep && isOpen() && isWanted()) {
      const outcome = await deps.wake();
      if (outcome === 'awake') continue;
      if (isOpen()) deps.onNotWoken(outcome);
      break;
    }
    isWaking = false;
  }

  function apply(): void {
    engine.setKeepAlive(!asleep, deps.keepAliveMs);
    if (asleep) {
      engine.cork();
      return;
    }
    engine.uncork();
    if (inputEnded) engine.end();
  }

  function setAsleep(next: boolean): void {
    if (next !== asleep) {
      asleep = next;
      apply();
    }
    void wakeIfWanted();
  }

  setAsleep(deps.asleep);
  return {
    setAsleep,
    sent() {
      unansweredSince = performance.now();
      // Once the bytes are written: they count as waiting then.
      if (asleep) void Promise.resolve().then(wakeIfWanted);
    },
    answered() {
      unansweredSince = undefined;
    },
    end() {
      inputEnded = true;
      if (!asleep) engine.end();
    },
  };
}
