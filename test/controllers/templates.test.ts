import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { createTemplateMaker } from '../../src/controllers/templates.ts';
import { loadCatalog } from '../../src/core/catalog/load.ts';
import { allPlans } from '../../src/core/catalog/lookup.ts';
import { catalogFile } from '../support/broker.ts';
import { silentLogger } from '../support/logger.ts';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance'] });
});
afterEach(() => {
  vi.useRealTimers();
});

// Fails if templates are made at the start only: a failure, or a bad one, lasted until the worker was restarted.
it('template that could not be made: is tried again after growing pauses; the other plans are not affected', async () => {
  const made: string[] = [];
  let isBroken = true;
  const maker = createTemplateMaker({
    hypervisor: {
      makeTemplate({ planName }) {
        made.push(planName);
        return planName === 'small' && isBroken ? Promise.reject(new Error('no space')) : Promise.resolve();
      },
    },
    plans: allPlans(loadCatalog(catalogFile, 'test')),
    report: () => undefined,
    onTried: () => undefined,
    logger: silentLogger,
    signal: new AbortController().signal,
  });
  const round = async (minutes: number) => {
    vi.advanceTimersByTime(minutes * 60_000);
    made.length = 0;
    await maker.runOnce();
    return [...made];
  };
  expect(await round(0)).toEqual(['small', 'large']);
  expect(await round(1)).toEqual(['small', 'large']);
  expect(await round(1)).toEqual(['large']);
  expect(await round(4)).toEqual(['small', 'large']);
  expect(await round(5)).toEqual(['large']);
  isBroken = false;
  expect(await round(5)).toEqual(['small', 'large']);
  // A template may turn out to be bad later.
  expect(await round(1)).toEqual(['small', 'large']);
});
