import { expect, it } from 'vitest';
import { startControllers, type Trigger } from '../../src/controllers/controller.ts';
import { eventually } from '../support/eventually.ts';
import { createLineLogger, silentLogger } from '../support/logger.ts';

/** Notifications that the test sends itself. */
function fakeNotifications() {
  const callbacks = new Map<string, Set<() => void>>();
  const on = (channel: string, heard: () => void) => {
    callbacks.set(channel, (callbacks.get(channel) ?? new Set()).add(heard));
    return () => callbacks.get(channel)?.delete(heard);
  };
  return {
    notifications: { on, onReconnected: (callback: () => void) => on('reconnected', callback) },
    notify: (channel: string) => {
      for (const heard of callbacks.get(channel) ?? []) heard();
    },
  };
}

const hour = 3_600_000;

it('controllers: a failed run is logged with its name and the next try, and repeated', async () => {
  const { logger, lines } = createLineLogger();
  let runs = 0;
  const run = () => {
    runs += 1;
    return Promise.reject(new Error('no'));
  };
  const stop = startControllers([{ name: 'Reconciliation', everyMs: 20, run }], {
    logger,
    ...fakeNotifications(),
  });
  await eventually('it ran twice', () => runs >= 2);
  await stop();
  expect(lines[0]).toMatchObject({
    message: 'Reconciliation failed; retrying in 0.02 s',
    details: { controller: 'Reconciliation' },
  });
});

it('controllers: run at the start, periodically, on a notification, and on a reconnection', async () => {
  const { notifications, notify } = fakeNotifications();
  const triggers: Trigger[] = [];
  const run = (trigger: Trigger) => Promise.resolve(void triggers.push(trigger));
  const stop = startControllers(
    [
      { name: 'woken', everyMs: hour, wakeOn: ['power'], run },
      { name: 'periodic', everyMs: 20, run },
    ],
    { logger: silentLogger, notifications },
  );
  expect(triggers).toEqual(['start', 'start']);
  notify('power');
  notify('reconnected');
  notify('other');
  expect(triggers).toEqual(['start', 'start', 'notification', 'notification']);
  await eventually('the timer has fired', () => triggers.includes('timer'));
  await stop();
  const count = triggers.length;
  notify('power');
  expect(triggers).toHaveLength(count);
});

it('controllers: without an interval, a controller runs once', async () => {
  let runs = 0;
  const run = () => Promise.resolve(void (runs += 1));
  const stop = startControllers([{ name: 'once', everyMs: undefined, run }], {
    logger: silentLogger,
    ...fakeNotifications(),
  });
  await stop();
  expect(runs).toBe(1);
});

it('controllers: stop waits for the runs in progress', async () => {
  const { notifications, notify } = fakeNotifications();
  const finish: (() => void)[] = [];
  const run = () => new Promise<void>((resolve) => finish.push(resolve));
  const stop = startControllers([{ name: 'slow', everyMs: hour, wakeOn: ['power'], run }], {
    logger: silentLogger,
    notifications,
  });
  notify('power');
  let stopped = false;
  const stopping = stop().then(() => (stopped = true));
  finish[0]?.();
  await new Promise((resolve) => setImmediate(resolve));
  expect(stopped).toBe(false);
  finish[1]?.();
  await stopping;
});
