import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { binding, hints, ids, instance, provisionBody } from '../../../support/broker.ts';
import { accepting, type OsbBroker, concurrencyError, makeOsbBroker } from '../../../support/osb-broker.ts';
import { eventually } from '../../../support/eventually.ts';
import { createLineLogger } from '../../../support/logger.ts';

const { logger, lines } = createLineLogger();
let on: OsbBroker;
beforeAll(async () => {
  on = await makeOsbBroker(inject('postgres'), { logger });
});
afterAll(() => on.stop());

const livingHosts = (osbId: string) =>
  on.broker
    .database('hosts')
    .join('instances', 'instances.id', 'instance_id')
    .where({ osb_id: osbId })
    .whereNot('hosts.state', 'destroyed');
const removeApart = (id: string) =>
  on.ask('delete', `${instance(id)}?${accepting}&${hints}`, undefined, { wait: false });

it.each([
  ['38a', `plan_id=${ids.plan}`, 'service_id'],
  ['38a', `service_id=${ids.service}`, 'plan_id'],
  ['38b', `service_id=&plan_id=${ids.plan}`, 'service_id'],
  ['38b', `service_id=${ids.service}&plan_id=`, 'plan_id'],
  ['38c', `service_id=unknown&plan_id=${ids.plan}`, 'service_id'],
  ['38c', `service_id=${ids.service}&plan_id=unknown`, 'plan_id'],
])('%s: refuses a DELETE with missing, empty or unknown ids with 400: ?%s', async (_, query, field) => {
  const id = await on.newInstance();
  for (const one of [id, randomUUID()]) {
    const answer = await on.remove(one, `?${accepting}&${query}`);
    expect(answer.status).toBe(400);
    expect(answer.body['description']).toContain(field);
  }
  expect((await on.get(id)).status).toBe(200);
});

it('38d: accepts and logs another plan of the same offering', async () => {
  const id = await on.newInstance();
  const before = lines.length;
  const answer = await on.remove(id, `?${accepting}&service_id=${ids.service}&plan_id=${ids.otherPlan}`);
  expect(answer.status).toBe(200);
  expect(lines.slice(before).map(({ message }) => message)).toContain('The platform sent a stale plan id');
});

it('38e: answers 200 {} on success and 410 {} for a deleted instance', async () => {
  const id = await on.newInstance();
  const done = await on.remove(id);
  expect([done.status, done.text]).toEqual([200, '{}']);
  const gone = await on.remove(id);
  expect([gone.status, gone.text]).toEqual([410, '{}']);
});

it('39a: cancels a create that still runs and leaves nothing of it', async () => {
  const id = randomUUID();
  await on.duringCreate(id, async () => {
    on.operationOf(await removeApart(id));
  });
  expect((await on.last(id)).body['state']).toBe('succeeded');
  expect(await livingHosts(id)).toEqual([]);
  expect((await on.get(id)).status).toBe(404);
});

it('39b: reports the cancelled create as failed, and the delete for its own operation or none', async () => {
  const id = randomUUID();
  await on.duringCreate(id, async (create) => {
    const remove = on.operationOf(await removeApart(id));
    const state = async (query: string) => (await on.last(id, query)).body['state'];
    expect(await state(`?operation=${create}`)).toBe('failed');
    expect(await state(`?operation=${remove}`)).toBe('in progress');
    expect(await state('')).toBe('in progress');
    on.faults.unblock();
    await on.ended(id);
    expect(await state(`?operation=${create}`)).toBe('failed');
    expect(await state(`?operation=${remove}`)).toBe('succeeded');
    expect(await state('')).toBe('succeeded');
  });
});

it('39c: answers a repeated DELETE while it runs with 202 and the same operation', async () => {
  const id = await on.newInstance();
  await on.duringDelete(id, async (operation) => {
    expect(on.operationOf(await removeApart(id))).toBe(operation);
  });
});

it('39d: refuses a DELETE during an update with 422 ConcurrencyError', async () => {
  const id = await on.newInstance();
  await on.duringUpdate(id, async () => {
    const answer = await on.remove(id);
    expect([answer.status, answer.body]).toEqual([422, concurrencyError]);
  });
  expect((await on.get(id)).status).toBe(200);
});

it.each(['put', 'patch'] as const)(
  '39e: refuses a %s during a delete with 422 ConcurrencyError',
  async (method) => {
    const id = await on.newInstance();
    await on.duringDelete(id, async () => {
      const answer = await (method === 'put' ? on.put(id) : on.patch(id, { plan_id: ids.otherPlan }));
      expect([answer.status, answer.body]).toEqual([422, concurrencyError]);
    });
  },
);

it('40a: answers each of eleven attempts to delete an unused id with 410', async () => {
  const id = randomUUID();
  for (let attempt = 0; attempt < 11; attempt += 1) {
    const answer = await on.remove(id);
    expect([answer.status, answer.body]).toEqual([410, {}]);
  }
  expect((await on.last(id)).status).toBe(404);
});

it('40b: refuses a PUT of an id with 409 for an hour after its early delete', async () => {
  const { database } = on.broker;
  const ago = (minutes: number) => ({
    deleted_at: database.raw(`now() - ? * interval '1 minute'`, [minutes]),
  });
  const id = randomUUID();
  await on.remove(id);
  expect((await on.put(id)).status).toBe(409);
  await database('early_deletes').where({ osb_id: id }).update(ago(59));
  expect((await on.put(id)).status).toBe(409);
  await database('early_deletes').where({ osb_id: id }).update(ago(61));
  expect((await on.put(id)).status).toBe(201);
});

it('40c: remembers an early delete for an hour after the last attempt, and deletes older ones', async () => {
  const { database } = on.broker;
  const age = (id: string, minutes: number) =>
    database('early_deletes')
      .where({ osb_id: id })
      .update({ deleted_at: database.raw(`now() - ? * interval '1 minute'`, [minutes]) });
  const [id, forgotten] = [randomUUID(), randomUUID()];
  await on.remove(id);
  await on.remove(forgotten);
  await age(id, 59);
  await age(forgotten, 61);
  await on.remove(id);
  const kept = await database('early_deletes')
    .whereIn('osb_id', [id, forgotten])
    .where('deleted_at', '>', database.raw(`now() - interval '30 minutes'`))
    .pluck('osb_id');
  expect(kept).toEqual([id]);
  expect(await database('early_deletes').where({ osb_id: forgotten })).toEqual([]);
});

it('40d: deletes an instance whose PUT is still being processed', async () => {
  const { database } = on.broker;
  const id = randomUUID();
  // The PUT is in the middle of its transaction: the id was free, and its instance is not yet visible.
  const blocker = await database.transaction();
  await blocker.raw('LOCK TABLE operations IN ACCESS EXCLUSIVE MODE');
  const waiting = async (count: number) => {
    const { rows } = await database.raw<{ rows: { count: number }[] }>(
      `SELECT count(*)::integer FROM pg_stat_activity
       WHERE datname = current_database() AND wait_event_type = 'Lock' AND (query LIKE 'insert into "operations"%' OR query LIKE '%advisory%')`,
    );
    return rows[0]?.count === count;
  };
  const creating = on.ask('put', `${instance(id)}?${accepting}`, provisionBody, { wait: false });
  await eventually('the PUT waits', () => waiting(1));
  let isGone = false;
  const removing = removeApart(id).then((answer) => {
    isGone = answer.status === 410;
    return answer;
  });
  await eventually('the DELETE waits, or was answered', async () => isGone || (await waiting(2)));
  await blocker.rollback();
  expect((await creating).status).toBe(202);
  expect((await removing).status).toBe(202);
  await on.ended(id);
  expect(await livingHosts(id)).toEqual([]);
});

it('40e: never reuses an id with a tombstone', async () => {
  const id = await on.newInstance();
  await on.remove(id);
  await on.broker
    .database('instances')
    .where({ osb_id: id })
    .update({ updated_at: new Date(0) });
  expect((await on.put(id)).status).toBe(409);
  expect((await on.patch(id, { plan_id: ids.otherPlan })).status).toBe(404);
});

it('41a: revokes the bindings of a deleted instance', async () => {
  const id = await on.newInstance();
  await on.bind(id, 'one');
  await on.bind(id, 'two');
  await on.remove(id);
  const states = await on.broker
    .database('bindings')
    .join('instances', 'instances.id', 'bindings.instance_id')
    .where({ 'instances.osb_id': id })
    .select('bindings.state', 'sealed_credentials');
  expect(states).toEqual(Array(2).fill({ state: 'revoked', sealed_credentials: null }));
});

it('41b: answers an unbind after the instance was deleted with 410', async () => {
  const id = await on.newInstance();
  await on.bind(id, 'one');
  await on.remove(id);
  const answer = await on.unbind(id, 'one');
  expect([answer.status, answer.body]).toEqual([410, {}]);
  expect((await on.ask('get', binding(id, 'one'))).status).toBe(404);
  expect((await on.unbind(randomUUID(), 'one')).status).toBe(410);
});

it('42: deletes an instance that failed to create', async () => {
  const id = randomUUID();
  await on.failCreate(id);
  expect((await on.get(id)).status).toBe(404);
  const answer = await on.remove(id);
  expect([answer.status, answer.body]).toEqual([200, {}]);
  expect((await on.remove(id)).status).toBe(410);
});
