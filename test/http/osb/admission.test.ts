import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { createWorkerRecords } from '../../../src/postgres/workers.ts';
import {
  catalogFile,
  ids,
  instance,
  makeTestBroker,
  provisionBody,
  type TestBroker,
} from '../../support/broker.ts';

let broker: TestBroker;
beforeAll(async () => {
  const [offering] = catalogFile.offerings;
  const plans = offering?.plans.map((plan) => (plan.id === ids.plan ? { ...plan, pool: 1 } : plan));
  // Nothing keeps the pool but the test that asks for it.
  broker = await makeTestBroker(inject('postgres'), { catalog: { offerings: [{ ...offering, plans }] } });
  broker.startWorker();
});
afterAll(() => broker.stop());

/** What a worker reports of its machine; the test broker keeps 1,024 MiB in reserve and promises memory four times. */
const machine = (memoryAvailableMib: number, memoryTotalMib: number | undefined) =>
  createWorkerRecords(broker.database).report({
    name: 'w',
    hypervisor: 'qemu',
    templates: [],
    imageVersion: '1.0.0',
    memoryAvailableMib,
    memoryTotalMib,
  });
const create = async () => {
  const id = randomUUID();
  const answer = await broker.ask('put', `${instance(id)}?accepts_incomplete=true`).send(provisionBody);
  return { id, status: answer.status, text: (answer.body as { description?: string }).description ?? '' };
};
const instances = async () => Number((await broker.database('instances').count())[0]?.['count']);

it('refuses what the memory in use leaves no room for, and keeps nothing of it', async () => {
  await machine(1024 + 192, 100_000);
  expect((await create()).status).toBe(201);
  const before = await instances();
  await machine(1024 + 191, 100_000);
  const refusal = await create();
  expect(refusal.status).toBe(503);
  expect(refusal.text).toMatch(/191 MiB of its memory are free beyond the reserve of 1024 MiB.*192 MiB/);
  expect(await instances()).toBe(before);
});

it('refuses what passes the memory that may be promised', async () => {
  // Four times the 384 MiB beyond the reserve hold two hosts of 768 MiB, one of which is there.
  await machine(50_000, 1024 + 384);
  const second = await create();
  expect(second.status).toBe(201);
  const refusal = await create();
  expect(refusal.status).toBe(503);
  expect(refusal.text).toMatch(/1536 MiB of guest memory are promised.*768 MiB more.*limit is 1536 MiB/);
});

it('asks nothing where hosts take no memory, or nobody has told lately', async () => {
  await machine(0, undefined);
  expect((await create()).status).toBe(201);
  await machine(0, 0);
  await broker.database('workers').update({ seen_at: broker.database.raw(`now() - interval '1 hour'`) });
  expect((await create()).status).toBe(201);
});

// Seen to fail where only the report counts: each of them passed on it.
it('lets creates in between two reports into the room that there is, and no more', async () => {
  await machine(1024 + 3 * 192, 100_000);
  const made = await Promise.all(Array.from({ length: 6 }, create));
  expect(made.map(({ status }) => status).sort()).toEqual([201, 201, 201, 503, 503, 503]);
  expect(made.find(({ status }) => status === 503)?.text).toContain('for hosts that are starting');
  // They run, and the next report has measured them.
  await machine(1024 + 192, 100_000);
  expect((await create()).status).toBe(201);
});

// Seen to fail where the room of a host out of the pool, which has its memory, is asked for once more.
it('gives a host out of the pool away though memory is short', async () => {
  await broker.hypervisor.makeTemplate(
    { planName: 'small', shape: { vcpus: 1, memoryMib: 768, diskGib: 4 } },
    () => undefined,
    new AbortController().signal,
  );
  await broker.makePoolController().runOnce();
  await machine(1024, 100_000);
  expect((await create()).status).toBe(201);
  expect((await create()).status).toBe(503);
});

it('refuses an update only for the memory that it adds', async () => {
  await machine(50_000, 100_000);
  const { id } = await create();
  await machine(0, 100_000);
  const answer = await broker
    .ask('patch', `${instance(id)}?accepts_incomplete=true`)
    .send({ service_id: ids.service, plan_id: ids.otherPlan });
  // The other plan has more processors and the same memory.
  expect(answer.status).toBe(200);
});
