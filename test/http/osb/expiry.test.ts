import { randomUUID } from 'node:crypto';
import supertest from 'supertest';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { eventually } from '../../support/eventually.ts';
import {
  bindBody,
  binding,
  hints,
  instance,
  makeTestBroker,
  operator,
  provisionBody,
  type TestBroker,
} from '../../support/broker.ts';

let broker: TestBroker;
beforeAll(async () => {
  broker = await makeTestBroker(inject('postgres'));
  broker.startWorker();
});
afterAll(() => broker.stop());

const create = async (parameters: object) => {
  const id = randomUUID();
  const answer = await broker
    .ask('put', `${instance(id)}?accepts_incomplete=true`)
    .send({ ...provisionBody, parameters });
  expect(answer.status).toBe(201);
  return id;
};
const attributes = async (id: string) =>
  ((await broker.ask('get', instance(id)).expect(200)).body as { metadata: { attributes: object } }).metadata
    .attributes;

it('expiry: destroys the host and records the instance as expired', async () => {
  const id = await create({ expires_after: '90m' });
  expect(await attributes(id)).toMatchObject({
    state: 'ready',
    expires_at: expect.stringMatching(/\.\dZ$/) as string,
  });
  const bound = await broker.ask('put', binding(id, 'key')).send(bindBody);
  expect(bound.status).toBe(201);
  await broker.expireInstances();
  expect(await attributes(id)).toMatchObject({ state: 'ready' });

  await broker
    .database('instances')
    .where({ osb_id: id })
    .update({ expires_at: broker.database.raw(`now() - interval '1 second'`) });
  await broker.expireInstances();
  await eventually(
    'it has expired',
    async () => ((await attributes(id)) as { state: string }).state === 'expired',
  );

  const { rows } = await broker.database.raw<{ rows: unknown[] }>(
    `SELECT hosts.state, bindings.state AS binding FROM instances JOIN hosts ON hosts.instance_id = instances.id
     JOIN bindings ON bindings.instance_id = instances.id WHERE instances.osb_id = ?`,
    [id],
  );
  expect(rows).toEqual([{ state: 'destroyed', binding: 'revoked' }]);
  expect(await broker.hypervisor.list()).toEqual([]);

  const refusal = await broker.ask('put', binding(id, 'late')).send(bindBody);
  expect(refusal.status).toBe(422);
  expect((refusal.body as { description: string }).description).toMatch(/has expired/);
  expect((await broker.ask('get', binding(id, 'key'))).status).toBe(404);
  // last_operation still reports the platform's own operation.
  const last = await broker.ask('get', `${instance(id)}/last_operation`);
  expect(last.body).toMatchObject({ state: 'succeeded' });

  expect((await broker.ask('delete', `${instance(id)}?accepts_incomplete=true&${hints}`)).status).toBe(200);
  expect((await broker.ask('get', instance(id))).status).toBe(404);
});

it('expiry: a metric counts the instances that expire soon', async () => {
  await create({ expires_after: '2h' });
  const { text } = await supertest(broker.mgmt)
    .get('/mgmt/metrics')
    .auth(operator.username, operator.password)
    .expect(200);
  expect(text).toContain('berth_instances_expiring{within="1 hour"} 0');
  expect(text).toContain('berth_instances_expiring{within="1 day"} 1');
});

it('expiry: does not expire an instance that is being deleted', async () => {
  const id = await create({ expires_after: '1m' });
  await broker
    .database('instances')
    .where({ osb_id: id })
    .update({ expires_at: broker.database.raw(`now() - interval '1 second'`), state: 'deleting' });
  await broker.expireInstances();
  expect(await broker.database('operations').where({ kind: 'expire', state: 'in progress' })).toEqual([]);
  await broker.database('instances').where({ osb_id: id }).update({ state: 'ready', expires_at: null });
});

it.each([
  ['90', 'pattern'],
  ['0m', 'pattern'],
  [90, 'string'],
])('expiry: refuses expires_after %j and names the rule', async (duration, rule) => {
  const answer = await broker
    .ask('put', `${instance(randomUUID())}?accepts_incomplete=true`)
    .send({ ...provisionBody, parameters: { expires_after: duration } });
  expect(answer.status).toBe(400);
  expect((answer.body as { description: string }).description).toMatch(
    new RegExp(`^parameters/expires_after must .*${rule}`),
  );
});
