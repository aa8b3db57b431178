import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import type { Credentials } from '../../../src/http/osb/credentials-body.ts';
import {
  bindBody,
  binding,
  hints,
  instance,
  makeTestBroker,
  provisionBody,
  type TestBroker,
} from '../../support/broker.ts';

let broker: TestBroker;
const id = randomUUID();
const other = randomUUID();
beforeAll(async () => {
  broker = await makeTestBroker(inject('postgres'));
  broker.startWorker();
  for (const one of [id, other]) {
    await broker
      .ask('put', `${instance(one)}?accepts_incomplete=true`)
      .send(provisionBody)
      .expect(201);
  }
});
afterAll(() => broker.stop());

interface Bound {
  credentials: Credentials;
  metadata: { expires_at: string; renew_before: string };
}
const bind = async (bindingId: string, body: object, of = id) => {
  const answer = await broker.ask('put', binding(of, bindingId)).send(body);
  return { status: answer.status, body: answer.body as Bound & { description: string } };
};
const hoursLeft = ({ metadata }: Bound) => (Date.parse(metadata.expires_at) - Date.now()) / 3_600_000;

it('34a: accepts a body with only a predecessor and inherits app and parameters', async () => {
  const first = await bind('a1', {
    ...bindBody,
    bind_resource: { app_guid: 'app-1' },
    parameters: { valid_for: '12h' },
  });
  expect(first.status).toBe(201);
  const second = await bind('a2', { predecessor_binding_id: 'a1' });
  expect(second.status).toBe(201);
  expect(hoursLeft(second.body)).toBeCloseTo(12, 1);
  expect(second.body.credentials.cert).not.toBe(first.body.credentials.cert);
  expect((await broker.database('bindings').where({ osb_id: 'a2' }).first()) as object).toMatchObject({
    app_guid: 'app-1',
  });
});

it('34b: leaves both bindings valid until the old one is unbound, and answers a repeated request after that', async () => {
  await bind('b1', bindBody);
  const second = await bind('b2', { predecessor_binding_id: 'b1' });
  expect((await broker.ask('get', binding(id, 'b1'))).status).toBe(200);
  await broker.ask('delete', `${binding(id, 'b1')}?${hints}`).expect(200);
  const again = await bind('b2', { predecessor_binding_id: 'b1' });
  expect(again.status).toBe(200);
  expect(again.body.credentials).toEqual(second.body.credentials);
  expect((await bind('b2', { predecessor_binding_id: 'a1' })).status).toBe(409);
  expect((await bind('b2', bindBody)).status).toBe(409);
});

it('34c: refuses a predecessor that is unknown, unbound, expired or of another instance with 400', async () => {
  await bind('gone', bindBody);
  await broker.ask('delete', `${binding(id, 'gone')}?${hints}`).expect(200);
  await bind('old', bindBody);
  await broker
    .database('bindings')
    .where({ osb_id: 'old' })
    .update({ expires_at: broker.database.raw(`now() - interval '1 second'`) });
  await bind('foreign', bindBody, other);
  for (const predecessor of ['never', 'gone', 'old', 'foreign']) {
    const answer = await bind(`after-${predecessor}`, { predecessor_binding_id: predecessor });
    expect([predecessor, answer.status]).toEqual([predecessor, 400]);
    expect(answer.body.description).toMatch(/^predecessor_binding_id: .* still valid/);
  }
});

it('34d: refuses a bind without predecessor and without ids with 400', async () => {
  for (const body of [{}, { predecessor_binding_id: '' }, { service_id: bindBody.service_id }]) {
    const answer = await bind(randomUUID(), body);
    expect(answer.status).toBe(400);
    expect(answer.body.description).toMatch(/plan_id: is required/);
  }
});

it('bind: refuses a valid_for that is longer than the plan allows', async () => {
  const short = await bind('short', { ...bindBody, parameters: { valid_for: '90m' } });
  expect(hoursLeft(short.body)).toBeCloseTo(1.5, 1);
  const long = await bind('long', { ...bindBody, parameters: { valid_for: '366d' } });
  expect(long.status).toBe(400);
  expect(long.body.description).toMatch(/^parameters\/valid_for is 366d: .* 365 days/);
});
