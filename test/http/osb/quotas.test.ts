import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import {
  catalogFile,
  hints,
  instance,
  makeTestBroker,
  provisionBody,
  type TestBroker,
} from '../../support/broker.ts';

let broker: TestBroker;
const plan = catalogFile.offerings[0]?.plans[0];
beforeAll(async () => {
  broker = await makeTestBroker(inject('postgres'), {
    catalog: {
      quotas: { total: { memory_mib: 5 * 768 }, tenant: { instances: 2 } },
      offerings: [
        { ...catalogFile.offerings[0], plans: [{ ...plan, quotas: { tenant: { published_ports: 15 } } }] },
      ],
    },
  });
  broker.startWorker();
});
afterAll(() => broker.stop());

const create = (org: string, parameters: object = {}, id = randomUUID()) =>
  broker
    .ask('put', `${instance(id)}?accepts_incomplete=true`)
    .send({ ...provisionBody, organization_guid: org, parameters })
    .then(({ status, body }) => ({ id, status, text: (body as { description?: string }).description ?? '' }));
const remove = (id: string) =>
  broker.ask('delete', `${instance(id)}?accepts_incomplete=true&${hints}`).expect(200);
const rowsOf = async (id: string) => {
  const { rows } = await broker.database.raw<{ rows: object[] }>(
    'SELECT id FROM instances WHERE osb_id = ?',
    [id],
  );
  return rows.length;
};

it('quotas: a create beyond a limit is refused and records nothing; the text names limit, usage and remedy', async () => {
  const ports = [await create('a', { published_ports: 10 }), await create('a', { published_ports: 10 })];
  expect(ports.map(({ status }) => status)).toEqual([201, 422]);
  expect(ports[1]?.text).toBe(
    'The published ports of this tenant of the plan small would exceed its limit of 15: 10 are in use, and this needs 10 more. ' +
      'Delete instances, or ask the operator of the broker to raise it (quotas.tenant of the plan.published_ports in its catalog).',
  );
  expect(await rowsOf(ports[1]?.id ?? '')).toBe(0);

  const small = await create('a', { published_ports: 5 });
  expect(small.status).toBe(201);
  const third = await create('a', { published_ports: 0 });
  expect(third).toMatchObject({ status: 422 });
  expect(third.text).toMatch(/number of instances of this tenant would exceed its limit of 2: 2 are in use/);

  // A refusal counts nothing, and a delete releases its usage.
  await remove(small.id);
  expect((await create('a', { published_ports: 5 })).status).toBe(201);
});

it('quotas: of many creates at the same time, exactly as many as fit succeed', async () => {
  const before = await broker.database('hosts').whereNot({ state: 'destroyed' }).count<{ count: string }[]>();
  const free = 5 - Number(before[0]?.count);
  const answers = await Promise.all(
    Array.from({ length: 12 }, (_, index) => create(`crowd-${index}`, { published_ports: 0 })),
  );
  expect(answers.filter(({ status }) => status === 201)).toHaveLength(free);
  for (const { status, text, id } of answers.filter((answer) => answer.status !== 201)) {
    expect(status).toBe(422);
    expect(text).toMatch(/memory of this broker would exceed its limit of 3840 MiB: 3840 MiB are in use/);
    expect(await rowsOf(id)).toBe(0);
  }
  for (const { id } of answers.filter(({ status }) => status === 201)) await remove(id);
});

it('quotas: the counts agree with the hosts after every change', async () => {
  const counted = async () =>
    (await broker.database('quota_usage').whereNot({ instances: 0 }).orderBy('scope')) as unknown;
  const recounted = async () => {
    const { rows } = await broker.database.raw<{ rows: unknown }>(
      `SELECT scope, sum(u.instances)::integer AS instances, sum(u.vcpus)::integer AS vcpus,
         sum(u.memory_mib)::bigint AS memory_mib, sum(u.disk_gib)::bigint AS disk_gib,
         sum(u.published_ports)::integer AS published_ports
       FROM hosts, host_usage(hosts) AS u GROUP BY scope ORDER BY scope`,
    );
    return rows;
  };
  const made = await create('counted', { published_ports: 1 });
  expect(made.status).toBe(201);
  expect(await counted()).toEqual(await recounted());
  await broker.database.raw(
    `UPDATE hosts SET vcpus = 3, reserved_plan = 'large', reserved_memory_mib = 100
     WHERE instance_id = (SELECT id FROM instances WHERE osb_id = ?)`,
    [made.id],
  );
  expect(await counted()).toEqual(await recounted());
  await remove(made.id);
  expect(await counted()).toEqual(await recounted());
});
