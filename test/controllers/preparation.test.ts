import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { createPreparation } from '../../src/controllers/preparation.ts';
import { loadCatalog } from '../../src/core/catalog/load.ts';
import { allPlans } from '../../src/core/catalog/lookup.ts';
import { HypervisorError } from '../../src/core/hypervisor/hypervisor-error.ts';
import { catalogFile, instance, makeTestBroker, provisionBody, type TestBroker } from '../support/broker.ts';
import { eventually } from '../support/eventually.ts';
import { silentLogger } from '../support/logger.ts';

const plans = allPlans(loadCatalog(catalogFile, 'test'));

/** A hypervisor whose image is built, or fails to be, if the test says so. */
function preparationOf(first: string | undefined, templateError?: Error) {
  let version = first;
  let act: (error?: Error) => void = () => undefined;
  let made = 0;
  const reported: string[] = [];
  let isReady = false;
  const preparation = createPreparation({
    hypervisor: {
      imageVersion: () => version,
      installImage: (report) =>
        new Promise((resolve, reject) => {
          report('building the guest image: unpacking 40 %');
          act = (error) => {
            if (error !== undefined) reject(error);
            else {
              version = '2.0.0';
              resolve();
            }
          };
        }),
      makeTemplate: () => {
        if (templateError !== undefined) return Promise.reject(templateError);
        return Promise.resolve(void (made += 1));
      },
    },
    plans,
    report: (progress) => reported.push(progress),
    logger: silentLogger,
    signal: new AbortController().signal,
  });
  void preparation.ready.then(() => (isReady = true));
  return {
    ...{ preparation, reported },
    isReady: () => isReady,
    made: () => made,
    end: (error?: Error) => {
      act(error);
    },
  };
}

it('preparation: without an image hosts can be made only once it is built, and the template made', async () => {
  const { preparation, made, reported, isReady, end } = preparationOf(undefined);
  const running = preparation.runOnce();
  expect(preparation.state()).toEqual({
    preparing: 'building the guest image: unpacking 40 %',
    problem: 'No guest image is installed yet: creates wait for it.',
  });
  expect(reported).toEqual(['building the guest image: unpacking 40 %']);
  expect([isReady(), made()]).toEqual([false, 0]);
  end();
  await running;
  expect([isReady(), made()]).toEqual([true, 1]);
  expect(preparation.state()).toEqual({ preparing: undefined, problem: undefined });
});

it('preparation: with a former image hosts can be made while the new one is built', async () => {
  const { preparation, isReady, end } = preparationOf('1.0.0');
  const running = preparation.runOnce();
  await eventually('hosts can be made', isReady);
  expect(preparation.state().problem).toBeUndefined();
  end();
  await running;
});

// Fails if it is only logged: the new image would never be used, and no operator would know.
it('preparation: a template that can not be made is reported with its reason', async () => {
  const { preparation, isReady, end } = preparationOf('1.0.0', new HypervisorError('The guest panicked.'));
  const running = preparation.runOnce();
  end();
  await running;
  expect(isReady()).toBe(true);
  expect(preparation.state().problem).toMatch(
    /^The template can't be made, .*: The guest panicked\. New hosts are made from image 2\.0\.0,/,
  );
});

it('preparation: an image that can not be built is reported with its reason, and built by the next run', async () => {
  const { preparation, made, reported, isReady, end } = preparationOf('1.0.0');
  const running = preparation.runOnce();
  end(new HypervisorError('The mirror does not answer.'));
  await expect(running).rejects.toThrow('mirror');
  const { preparing, problem } = preparation.state();
  expect(preparing).toBeUndefined();
  expect(problem).toContain(
    'every minute: The mirror does not answer. New hosts get the former image, 1.0.0',
  );
  expect(reported.at(-1)).toBe(problem);
  expect([isReady(), made()]).toEqual([true, 0]);
  const second = preparation.runOnce();
  end();
  await second;
  expect([preparation.state().problem, made()]).toEqual([undefined, 1]);
  // The image is there: it is not built again.
  await preparation.runOnce();
});

let broker: TestBroker;
beforeAll(async () => {
  broker = await makeTestBroker(inject('postgres'));
});
afterAll(() => broker.stop());

// Fails if the prepare step does not look for the image: the driver's error fails the create.
it('preparation: a create waits while there is no image, says so, and is done once there is one', async () => {
  const installed: { version?: string } = {};
  broker.hypervisor.imageVersion = () => installed.version;
  broker.startWorker();
  const id = randomUUID();
  const answer = await broker
    .askAsynchronous('put', `${instance(id)}?accepts_incomplete=true`)
    .send(provisionBody);
  expect(answer.status).toBe(202);
  const poll = async () =>
    (await broker.ask('get', `${instance(id)}/last_operation`)).body as {
      state: string;
      description: string;
    };
  await eventually('the create waits', async () =>
    (await poll()).description.includes('Waiting for the guest image'),
  );
  installed.version = '1.0.0';
  await eventually('the create is done', async () => (await poll()).state === 'succeeded');
});
