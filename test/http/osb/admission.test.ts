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
  // No controller fills the pool; a test does.
  const pool = { max_size: 1 };
  broker = await makeTestBroker(inject('postgres'), {
    catalog: { pool, offerings: [{ ...offering, plans }] },
  });
  broker.startWorker();
});
afterAll(() => broker.stop());

/** Reports a worker's node memory; the test broker reserves 1,024 MiB and overcommits memory four times. */
const reportMemory = (memoryAvailableMib: number, memoryTotalMib: number | undefined) =>
  createWorkerRecords(broker.database).report({
    name: 'w',
    hypervisor: 'qemu',
    templates: [],
    memoryAvailableMib,
    memoryTotalMib,
  });
const create = async () => {
  const id = randomUUID();
  const answer = await broker.ask('put', `${instance(id)}?accepts_incomplete=true`).send(provisionBody);
  return { id, status: answer.status, text: (answer.body as { description?: string }).description ?? '' };
};
const instances = async () => Number((await broker.database('instances').count())[0]?.['count']);

it('admission: refuses a create for which the node lacks free memory, and records nothing', async () => {
  await reportMemory(1024 + 192, 100_000);
  expect((await create()).status).toBe(201);
  const before = await instances();
  await reportMemory(1024 + 191, 100_000);
  const refusal = await create();
  expect(refusal.status).toBe(503);
  expect(refusal.text).toMatch(/191 MiB of its memory are free beyond the reserve of 1024 MiB.*192 MiB/);
  expect(await instances()).toBe(before);
});

it('admission: refuses a create that exceeds the overcommit limit', async () => {
  // Four times the 384 MiB beyond the reserve: two hosts of 768 MiB, one of which exists.
  await reportMemory(50_000, 1024 + 384);
  const second = await create();
  expect(second.status).toBe(201);
  const refusal = await create();
  expect(refusal.status).toBe(503);
  expect(refusal.text).toMatch(/1536 MiB of guest memory are promised.*768 MiB more.*limit is 1536 MiB/);
});

it('admission: refuses a create that exceeds the disk that may be promised, and one while the disk is full', async () => {
  // Fails without requireDisk in provision.ts: 201.
  const reportDisk = (availableMib: number, capacityMib: number) =>
    createWorkerRecords(broker.database).report({
      name: 'w',
      hypervisor: 'qemu',
      templates: [],
      memoryAvailableMib: 100_000,
      memoryTotalMib: 200_000,
      disk: { availableMib, capacityMib, reserveMib: 2_048 },
    });
  const before = await instances();
  await reportDisk(2_047, 1_000_000);
  const full = await create();
  expect([full.status, full.text]).toEqual([
    503,
    expect.stringMatching(/out of disk space: 2047 MiB are free, and 2048 MiB are reserved/),
  ]);
  await reportDisk(3_000, 2_048 + 256);
  const promised = await create();
  expect([promised.status, promised.text]).toEqual([
    503,
    expect.stringMatching(/GiB are promised to hosts.*the limit is 1 GiB \(BERTH_DISK_OVERCOMMIT 4 times/),
  ]);
  expect(await instances()).toBe(before);
  await reportDisk(100_000, 100_000);
  expect((await create()).status).toBe(201);
  await broker.database('workers').delete();
});

it('admission: accepts every create if memory is unlimited or no worker has reported recently', async () => {
  await reportMemory(0, undefined);
  expect((await create()).status).toBe(201);
  await reportMemory(0, 0);
  await broker.database('workers').update({ seen_at: broker.database.raw(`now() - interval '1 hour'`) });
  expect((await create()).status).toBe(201);
});

// Fails if only the report counts: then all six are admitted.
it('admission: creates between two reports share the memory of the last report', async () => {
  await reportMemory(1024 + 3 * 192, 100_000);
  const made = await Promise.all(Array.from({ length: 6 }, create));
  expect(made.map(({ status }) => status).sort()).toEqual([201, 201, 201, 503, 503, 503]);
  expect(made.find(({ status }) => status === 503)?.text).toContain('for hosts that are starting');
  // They run, and the next report includes them.
  await reportMemory(1024 + 192, 100_000);
  expect((await create()).status).toBe(201);
});

// Fails if memory is required again for a parked host, which already has it.
it('admission: a parked host is claimed although memory is short', async () => {
  await broker.hypervisor.makeTemplate(() => undefined, new AbortController().signal);
  await broker.makePoolController().runOnce();
  await reportMemory(1024, 100_000);
  expect((await create()).status).toBe(201);
  expect((await create()).status).toBe(503);
});

it('admission: an update needs memory only for what it adds', async () => {
  await reportMemory(50_000, 100_000);
  const { id } = await create();
  await reportMemory(0, 100_000);
  const answer = await broker
    .ask('patch', `${instance(id)}?accepts_incomplete=true`)
    .send({ service_id: ids.service, plan_id: ids.otherPlan });
  // The other plan has more vCPUs and the same memory.
  expect(answer.status).toBe(200);
});
