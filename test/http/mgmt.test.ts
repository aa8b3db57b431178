import { randomUUID } from 'node:crypto';
import supertest from 'supertest';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { createWorkerRecords } from '../../src/postgres/workers.ts';
import { instance, makeTestBroker, operator, provisionBody, type TestBroker } from '../support/broker.ts';

let broker: TestBroker;
beforeAll(async () => {
  broker = await makeTestBroker(inject('postgres'));
  broker.startWorker();
});
afterAll(() => broker.stop());

const ask = (route: string) => supertest(broker.mgmt).get(route).auth(operator.username, operator.password);

it('management: refuses a request without the operator password', async () => {
  for (const route of ['/mgmt/health', '/mgmt/metrics', '/mgmt/hosts', '/']) {
    expect((await supertest(broker.mgmt).get(route)).status).toBe(401);
    expect((await supertest(broker.mgmt).get(route).auth('platform', 'open:sesame')).status).toBe(401);
  }
});

it('health: answers 503 with the missing processes, and 200 if all work', async () => {
  const without = await ask('/mgmt/health');
  expect(without.status).toBe(503);
  const { problems } = without.body as { problems: string[] };
  expect(problems.join(' ')).toMatch(/No gateway[^]*No worker/);
  await broker.database('gateways').insert({
    id: randomUUID(),
    lease_until: broker.database.raw(`clock_timestamp() + interval '1 hour'`),
  });
  const worker = {
    name: 'w',
    hypervisor: 'simulated',
    templates: [],
    memoryAvailableMib: 1,
    memoryTotalMib: undefined,
  };
  const report = {
    preparing: 'template small: booting the guest',
    problem: 'No guest image is installed yet',
  };
  await createWorkerRecords(broker.database).report({ ...worker, preparation: report });
  const preparing = await ask('/mgmt/health');
  expect(preparing.status).toBe(503);
  expect(preparing.body).toMatchObject({ preparing: [report.preparing], problems: [report.problem] });
  await createWorkerRecords(broker.database).report(worker);
  const whole = await ask('/mgmt/health');
  expect([whole.status, whole.body]).toEqual([
    200,
    { status: 'ok', hypervisor: 'simulated', simulated: true, problems: [], notices: [], preparing: [] },
  ]);
});

it('management: lists hosts and counts them in metrics', async () => {
  const id = randomUUID();
  await broker.ask('put', `${instance(id)}?accepts_incomplete=true`).send(provisionBody);
  const hosts = (await ask('/mgmt/hosts')).body as { hosts: Record<string, unknown>[] };
  expect(hosts.hosts).toHaveLength(1);
  expect(hosts.hosts[0]).toMatchObject({
    instance: id,
    state: 'running',
    plan: 'small',
    publishedPorts: '20000-20009',
  });
  const { text } = await ask('/mgmt/metrics');
  expect(text).toContain('berth_hosts{state="running",plan="small"} 1');
  expect(text).toContain('berth_operations{kind="provision",state="succeeded"} 1');
  expect(text).toContain('berth_free_slots 49');
});

it('health: shows the disk space that is free and promised, and reports hosts that are halted for lack of it', async () => {
  // Fails without `disk` and `halted` in health.ts.
  await broker.database('hosts').where({ state: 'running' }).update({ halted: 'disk-full' });
  await createWorkerRecords(broker.database).report({
    name: 'w',
    hypervisor: 'qemu',
    templates: [],
    memoryAvailableMib: 1,
    memoryTotalMib: undefined,
    disk: { availableMib: 1_000, capacityMib: 2_048 + 10 * 1024, reserveMib: 2_048 },
  });
  const { body } = (await ask('/mgmt/health')) as { body: { problems: string[]; disk: unknown } };
  expect(body.disk).toEqual({ availableMib: 1_000, promisedGib: 4, limitGib: 40 });
  expect(body.problems.join(' ')).toMatch(
    /The disk of w has 1000 MiB free[^]*1 running hosts .* \(disk-full\)/,
  );
});
