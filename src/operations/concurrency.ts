import { availableParallelism } from 'node:os';
import { createFairLimit } from '../lib/fair-limit.ts';

/**
 * Limits on CPU-bound work: more at once would only slow down each of them. Steps that wait for a guest or a gateway
 * are not limited, so a tenant's hanging host delays no other tenant. Tenants take turns, and a share of all turns is
 * always left for others.
 */
export interface Concurrency {
  /** Runs a step that ends by itself. @param tenantId of the host. */
  limitStep<T>(tenantId: string, act: () => Promise<T>): Promise<T>;
  /**
   * Runs the steps of an operation whose guest boots. Its turn ends with it, soon after `hasBooted` was called, or after
   * the longest boot.
   */
  limitBoot<T>(tenantId: string, act: (hasBooted: () => void) => Promise<T>): Promise<T>;
}

const stepsAtOnce = 8;
const bootsAtOnce = 2 * availableParallelism();
/** What one tenant can have of these; a quarter is left for others. */
const shareOf = (atOnce: number) => Math.max(1, Math.floor((atOnce * 3) / 4));
/** A step ends sooner; one that hangs must not keep others waiting. Milliseconds. */
const longestStepMs = 60_000;
/** The turn of a boot ends after this long, in milliseconds: a boot takes 40 to 130 s under emulation. */
const longestBootMs = 180_000;
/** How long an engine is busy with its start once the guest has booted, in milliseconds. */
const engineStartMs = 20_000;

/**
 * @param times.bootMs when the turn of a boot ends even if it still runs, in milliseconds.
 * @param times.engineStartMs the same, from the moment that its guest has booted.
 */
export function createConcurrency(times: { bootMs?: number; engineStartMs?: number } = {}): Concurrency {
  const { bootMs = longestBootMs, engineStartMs: startMs = engineStartMs } = times;
  const steps = createTurns({
    atOnce: stepsAtOnce,
    perOwner: shareOf(stepsAtOnce),
    longestMs: longestStepMs,
  });
  const boots = createTurns({ atOnce: bootsAtOnce, perOwner: shareOf(bootsAtOnce), longestMs: bootMs });
  return {
    limitStep: (tenantId, act) => steps(tenantId, act),
    limitBoot: (tenantId, act) =>
      boots(tenantId, (endAfter) =>
        act(() => {
          endAfter(startMs);
        }),
      ),
  };
}

/** Runs an act when its owner has a turn; the act can end the turn before it ends itself. */
export type Turns = <T>(owner: string, act: (endAfter: (ms: number) => void) => Promise<T>) => Promise<T>;

/**
 * Runs at most `atOnce` acts at a time, of each owner at most `perOwner`; the others wait, and owners take turns.
 * @param limits.longestMs when the turn of an act ends even if it still runs, in milliseconds.
 */
export function createTurns(limits: {
  readonly atOnce: number;
  readonly perOwner: number;
  readonly longestMs: number;
}): Turns {
  const turns = createFairLimit(limits);
  return async (owner, act) => {
    let leave: () => void = () => undefined;
    await new Promise<void>((resolve) => {
      leave = turns.enter(owner, resolve);
    });
    let timer = setTimeout(leave, limits.longestMs);
    let isEnding = false;
    try {
      return await act((ms) => {
        if (isEnding) return;
        isEnding = true;
        clearTimeout(timer);
        timer = setTimeout(leave, ms);
      });
    } finally {
      clearTimeout(timer);
      leave();
    }
  };
}
