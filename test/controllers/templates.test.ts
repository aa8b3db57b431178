import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { createTemplateMaker } from '../../src/controllers/templates.ts';
import type { Plan } from '../../src/core/catalog/catalog.ts';
import { loadCatalog } from '../../src/core/catalog/load.ts';
import { allPlans } from '../../src/core/catalog/lookup.ts';
import type { Hypervisor } from '../../src/core/hypervisor/hypervisor.ts';
import { catalogFile } from '../support/broker.ts';
import { createLineLogger } from '../support/logger.ts';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance'] });
});
afterEach(() => {
  vi.useRealTimers();
});

const plans = allPlans(loadCatalog(catalogFile, 'test'));

function makerOf(makeTemplate: Hypervisor['makeTemplate'], of: readonly Plan[] = plans) {
  const reported: string[] = [];
  const log = createLineLogger();
  const maker = createTemplateMaker({
    hypervisor: { makeTemplate },
    plans: of,
    report: (progress) => reported.push(progress),
    onTried: () => undefined,
    logger: log.logger,
    signal: new AbortController().signal,
  });
  return { maker, reported, log };
}

it('template: one is made, whatever number of plans is restored from it', async () => {
  let made = 0;
  const { maker, reported } = makerOf((report) => {
    made += 1;
    report('booting the guest');
    return Promise.resolve();
  });
  await maker.runOnce();
  expect(made).toBe(1);
  expect(reported).toEqual(['template: booting the guest']);
});

it('template: none is made if no plan is restored from it', async () => {
  let made = 0;
  const { maker } = makerOf(
    () => Promise.resolve(void (made += 1)),
    plans.map((plan) => ({ ...plan, fromTemplate: false })),
  );
  await maker.runOnce();
  expect(made).toBe(0);
});

// Fails if it is made at the start only: a failure, or a bad one, lasted until the worker was restarted.
it('template that could not be made: is tried again after growing pauses', async () => {
  let tries = 0;
  let isBroken = true;
  const { maker, log } = makerOf(() => {
    tries += 1;
    return isBroken ? Promise.reject(new Error('no space')) : Promise.resolve();
  });
  const round = async (minutes: number) => {
    vi.advanceTimersByTime(minutes * 60_000);
    tries = 0;
    await maker.runOnce();
    return tries;
  };
  expect([await round(0), await round(1), await round(1), await round(4), await round(5)]).toEqual([
    1, 1, 0, 1, 0,
  ]);
  expect(log.lines).toMatchObject([
    {
      details: { plans: 'small, large' },
      message: expect.stringMatching(/^The template could not/) as string,
    },
  ]);
  isBroken = false;
  // It may turn out to be bad later.
  expect([await round(5), await round(1)]).toEqual([1, 1]);
});
