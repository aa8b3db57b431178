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

// Fails if the DELETE is refused: an update whose host hangs then keeps its tenant from deleting it.
it('39d: a DELETE halts a running update, which is reported as failed, and leaves nothing', async () => {
  const id = await on.newInstance();
  await on.duringUpdate(id, async (update) => {
    const remove = on.operationOf(await removeApart(id));
    const state = async (query: string) => (await on.last(id, query)).body['state'];
    expect(await state(`?operation=${update}`)).toBe('failed');
    expect(await state(`?operation=${remove}`)).toBe('in progress');
    on.faults.unblock();
    expect((await on.ended(id))['state']).toBe('succeeded');
    expect(await state(`?operation=${update}`)).toBe('failed');
  });
  expect(await livingHosts(id)).toEqual([]);
  expect((await on.get(id)).status).toBe(404);
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

const minutesAgo = (minutes: number) => new Date(Date.now() - minutes * 60_000);

// Fails without releasing the id: 409 for good, and a platform that retries the create never gets its instance.
it('40e: refuses the id of a deleted instance for an hour, and accepts it as a new instance afterwards', async () => {
  const { database } = on.broker;
  const id = await on.newInstance();
  await on.remove(id);
  const deleted = (minutes: number) =>
    database('instances')
      .where({ osb_id: id, state: 'deleted' })
      .update({ updated_at: minutesAgo(minutes) });
  await deleted(59);
  const early = await on.put(id);
  expect(early.status).toBe(409);
  expect(early.body['description']).toMatch(/deleted less than an hour ago\. Use a new instance id/);
  expect((await on.patch(id, { plan_id: ids.otherPlan })).status).toBe(404);
  await deleted(61);
  expect((await on.put(id)).status).toBe(201);
  expect((await on.put(id)).status).toBe(200);
  expect((await on.get(id)).status).toBe(200);
  expect((await on.last(id)).body).toMatchObject({ state: 'succeeded' });
  expect(await livingHosts(id)).toHaveLength(1);
  expect((await on.remove(id)).status).toBe(200);
  expect((await on.last(id)).body).toMatchObject({ state: 'succeeded' });
  expect((await on.put(id)).status).toBe(409);
  // The first tombstone stays, so no row id and no serial is used twice.
  expect(await database('instances').where({ osb_id: id })).toHaveLength(2);
});

it('40f: refuses the id of an unbound binding for an hour, and accepts it as a new binding afterwards', async () => {
  const { database } = on.broker;
  const id = await on.newInstance();
  const first = await on.bind(id, 'again');
  await on.unbind(id, 'again');
  const unbound = (minutes: number) =>
    database('bindings')
      .where({ osb_id: 'again', state: 'revoked' })
      .update({ revoked_at: minutesAgo(minutes) });
  await unbound(59);
  expect((await on.bind(id, 'again')).status).toBe(409);
  await unbound(61);
  const second = await on.bind(id, 'again');
  expect(second.status).toBe(201);
  expect(second.body['credentials']).not.toEqual(first.body['credentials']);
  expect((await on.bind(id, 'again')).body['credentials']).toEqual(second.body['credentials']);
  expect((await on.unbind(id, 'again')).status).toBe(200);
  const serials = await database('bindings').where({ osb_id: 'again' }).pluck<string[]>('serial');
  expect(new Set(serials).size).toBe(2);
});

it('40g: creates one instance if a used id is sent twice at once after its hour', async () => {
  const { database } = on.broker;
  const id = await on.newInstance();
  await on.remove(id);
  await database('instances')
    .where({ osb_id: id })
    .update({ updated_at: minutesAgo(61) });
  const answers = await Promise.all([on.put(id), on.put(id), on.put(id)]);
  for (const { status } of answers) expect([200, 201, 202]).toContain(status);
  await on.ended(id);
  expect(await livingHosts(id)).toHaveLength(1);
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
