import { leavesShare } from './fair-share.ts';

/** A piece of work that a client without proof of a binding causes. */
export interface HandshakeStep {
  /** Steps of one source run in this order, smallest first, and of equal ones the last. */
  readonly order: number;
  readonly run: () => void;
  /** Receives the time that `run` took, in milliseconds. */
  readonly took: (ms: number) => void;
}

/**
 * Decides whose handshake continues next. Handshakes share a thread with relayed streams, so they get a part of
 * its time, and each source address a fair share of that part.
 */
export interface HandshakeQueue {
  /** Runs the step when it is the source's turn. @returns a function that withdraws it. */
  add(source: string, step: HandshakeStep): () => void;
  /** The source's client is authenticated: its handshake took this time, which isn't charged to its address. */
  refund(source: string, ms: number): void;
  close(): void;
}

interface Source {
  readonly steps: Set<HandshakeStep>;
  /** Recent time in milliseconds, which fades. */
  spent: number;
}

/** Time that is forgotten: after this many milliseconds, about a third of it still counts. */
const fadeMs = 1_000;
/** Next look when every source has had its share for now. Milliseconds. */
const pauseMs = 5;
/** Less recent time than this isn't remembered. Milliseconds. */
const negligibleMs = 0.1;

/**
 * @param deps.threadShare most of the thread's time that the handshakes of clients without a live binding get,
 * 0 to 1. One source alone gets half of it.
 */
export function createHandshakeQueue(deps: { threadShare: number; now?: () => number }): HandshakeQueue {
  const { now = () => performance.now() } = deps;
  const budgetMs = deps.threadShare * fadeMs;
  const sources = new Map<string, Source>();
  let waiting = 0;
  let fadedAt = now();
  let immediate: NodeJS.Immediate | undefined;
  let timer: NodeJS.Timeout | undefined;

  function sourceNamed(name: string): Source {
    let source = sources.get(name);
    if (source === undefined) {
      source = { steps: new Set(), spent: 0 };
      sources.set(name, source);
    }
    return source;
  }

  /** @returns the recent time of all sources. */
  function fade(): number {
    const at = now();
    const factor = Math.exp((fadedAt - at) / fadeMs);
    fadedAt = at;
    let total = 0;
    for (const [name, source] of sources) {
      source.spent *= factor;
      if (source.steps.size === 0 && source.spent < negligibleMs) sources.delete(name);
      else total += source.spent;
    }
    return total;
  }

  function leastServed(): Source | undefined {
    let least: Source | undefined;
    for (const source of sources.values()) {
      if (source.steps.size > 0 && (least === undefined || source.spent < least.spent)) least = source;
    }
    return least;
  }

  // One step for each turn of the event loop: relayed streams have theirs in between.
  function runOne(): void {
    immediate = timer = undefined;
    const total = fade();
    const source = leastServed();
    if (source === undefined) return;
    if (!leavesShare(source.spent, total, budgetMs)) {
      timer = setTimeout(runOne, pauseMs);
      return;
    }
    let next: HandshakeStep | undefined;
    for (const step of source.steps) if (next === undefined || step.order <= next.order) next = step;
    if (next !== undefined) {
      remove(source, next);
      const from = now();
      next.run();
      const ms = now() - from;
      source.spent += ms;
      next.took(ms);
    }
    schedule();
  }

  function schedule(): void {
    if (waiting > 0 && immediate === undefined && timer === undefined) immediate = setImmediate(runOne);
  }

  function remove(source: Source, step: HandshakeStep): void {
    if (source.steps.delete(step)) waiting -= 1;
  }

  return {
    add(name, step) {
      const source = sourceNamed(name);
      source.steps.add(step);
      waiting += 1;
      schedule();
      return () => {
        remove(source, step);
      };
    },
    refund(name, ms) {
      const source = sources.get(name);
      if (source !== undefined) source.spent = Math.max(source.spent - ms, 0);
    },
    close() {
      clearImmediate(immediate);
      clearTimeout(timer);
      sources.clear();
      waiting = 0;
    },
  };
}
