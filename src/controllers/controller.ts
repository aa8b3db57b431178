import type { Logger } from '../lib/logger.ts';
import { repeat } from '../lib/repeat.ts';

/** Why a run begins. */
export type Trigger = 'start' | 'timer' | 'notification';

/** A periodic loop of the worker. */
export interface Controller<Channel extends string = string> {
  /** Subject of its log messages, as in "Reconciliation failed; retrying in 5 s". */
  readonly name: string;
  /** Time from the end of a run to the start of the next, in milliseconds; undefined: it runs once, at the start. */
  readonly everyMs: number | undefined;
  /**
   * Postgres channels whose notifications start a run at once, as does a reconnection, which may have lost some. Such
   * a run can overlap with others.
   */
  readonly wakeOn?: readonly Channel[];
  run(trigger: Trigger): Promise<void>;
}

/** Notifications of Postgres, as the processes' listener delivers them. */
interface Notifications<Channel extends string> {
  on(channel: Channel, heard: () => void): () => void;
  onReconnected(callback: () => void): () => void;
}

/**
 * Starts the controllers, each with a first run at once. A failed run is logged and repeated at the next interval.
 * @returns a function that stops them and waits for the runs in progress.
 */
export function startControllers<Channel extends string>(
  controllers: readonly Controller<Channel>[],
  deps: { readonly logger: Logger; readonly notifications: Notifications<Channel> },
): () => Promise<void> {
  const stops = controllers.map((controller) => startController(controller, deps));
  return async () => {
    await Promise.all(stops.map((stop) => stop()));
  };
}

function startController<Channel extends string>(
  controller: Controller<Channel>,
  { logger, notifications }: { readonly logger: Logger; readonly notifications: Notifications<Channel> },
): () => Promise<void> {
  const { name, everyMs, wakeOn = [] } = controller;
  const warn = (error: unknown) => {
    const next = everyMs === undefined ? '' : `; retrying in ${everyMs / 1000} s`;
    logger.warn({ controller: name, err: error }, `${name} failed${next}`);
  };

  let trigger: Trigger = 'start';
  const run = () => {
    const current = trigger;
    trigger = 'timer';
    return controller.run(current);
  };
  const first = everyMs === undefined ? run().catch(warn) : undefined;
  const stopTimer = everyMs === undefined ? () => first : repeat(everyMs, run, warn);

  const woken = new Set<Promise<void>>();
  const wake = () => {
    const one = controller
      .run('notification')
      .catch(warn)
      .finally(() => woken.delete(one));
    woken.add(one);
  };
  const unsubscribe = wakeOn.map((channel) => notifications.on(channel, wake));
  if (wakeOn.length > 0) unsubscribe.push(notifications.onReconnected(wake));

  return async () => {
    for (const end of unsubscribe) end();
    await stopTimer();
    await Promise.all(woken);
  };
}
