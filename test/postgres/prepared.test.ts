import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, expect, inject, it } from 'vitest';
import { instance, makeTestBroker, provisionBody, type TestBroker } from '../support/broker.ts';

let broker: TestBroker;
beforeEach(async () => {
  broker = await makeTestBroker(inject('postgres'));
  broker.startWorker();
});
afterEach(() => broker.stop());

// Fails if a prepared statement selects `*`: "cached plan must not change result type".
it('prepared statements: open connections still serve after a migration that adds columns', async () => {
  const create = () =>
    broker.ask('put', `${instance(randomUUID())}?accepts_incomplete=true`).send(provisionBody);
  const id = randomUUID();
  const path = instance(id);
  expect((await broker.ask('put', `${path}?accepts_incomplete=true`).send(provisionBody)).status).toBe(201);
  const poll = () => broker.ask('get', `${path}/last_operation`);
  expect((await poll()).body).toMatchObject({ state: 'succeeded' });
  await broker.database.raw(
    ['instances', 'hosts', 'operations', 'slots', 'workers']
      .map((table) => `ALTER TABLE ${table} ADD COLUMN added integer`)
      .join(';'),
  );
  expect((await poll()).body).toMatchObject({ state: 'succeeded' });
  expect((await broker.ask('get', path)).status).toBe(200);
  expect((await create()).status).toBe(201);
});
