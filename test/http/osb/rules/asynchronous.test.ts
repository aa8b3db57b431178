/* eslint-disable max-lines -- one file per chapter of docs/osb.md, whose rules share one broker */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { readSettings } from '../../../../src/config/settings.ts';
import { maximumPollingSeconds } from '../../../../src/core/operation-deadline.ts';
import { workflows } from '../../../../src/operations/workflows.ts';
import { deleteOldOperations } from '../../../../src/controllers/retention.ts';
import type { OperationRow } from '../../../../src/postgres/records/rows.ts';
import { bindBody, binding, hints, ids, instance, provisionBody } from '../../../support/broker.ts';
import { accepting, asyncRequired, type OsbBroker, makeOsbBroker } from '../../../support/osb-broker.ts';
import { createLineLogger } from '../../../support/logger.ts';

const { logger, lines } = createLineLogger();
let on: OsbBroker;
beforeAll(async () => {
  on = await makeOsbBroker(inject('postgres'), { logger });
});
afterAll(() => on.stop());

const apart = { wait: false };
const daysAgo = (days: number) => new Date(Date.now() - days * 24 * 3600 * 1000);
const lastOfBinding = (id: string, bindingId: string, query = '') =>
  on.ask('get', `${binding(id, bindingId)}/last_operation${query}`);
/** Dates the end of all operations of an instance back by a number of days. */
async function age(osbId: string, days: number) {
  const row = (await on.broker.database('instances').where({ osb_id: osbId }).first()) as { id: string };
  await on.broker
    .database('instances')
    .where({ id: row.id })
    .update({ updated_at: daysAgo(days) });
  await on.broker
    .database('operations')
    .where({ instance_id: row.id })
    .update({ finished_at: daysAgo(days) });
}

it.each(['', '?accepts_incomplete=false', '?accepts_incomplete='])(
  '13a: refuses a create with the query "%s" with 422 AsyncRequired',
  async (query) => {
    const answer = await on.put(randomUUID(), {}, query);
    expect([answer.status, answer.body]).toEqual([422, asyncRequired]);
  },
);

it('13b: refuses a delete without accepts_incomplete with 422 AsyncRequired', async () => {
  const id = await on.newInstance();
  const answer = await on.remove(id, `?${hints}`);
  expect([answer.status, answer.body]).toEqual([422, asyncRequired]);
  expect((await on.get(id)).status).toBe(200);
});

it('13c: refuses an update with work to do without accepts_incomplete with 422 AsyncRequired', async () => {
  const answer = await on.patch(await on.newInstance(), { plan_id: ids.otherPlan }, '');
  expect([answer.status, answer.body]).toEqual([422, asyncRequired]);
});

it.each(['', `?${accepting}`])('13d: binds and unbinds synchronously with the query "%s"', async (query) => {
  const id = await on.newInstance();
  expect((await on.ask('put', `${binding(id, 'b')}${query}`, bindBody)).status).toBe(201);
  const unbound = await on.unbind(id, 'b', `?${hints}${query.replace('?', '&')}`);
  expect([unbound.status, unbound.body]).toEqual([200, {}]);
});

it('13e: answers 201 and 200 if the work ends within BERTH_SYNC_WAIT_MS', async () => {
  const id = randomUUID();
  expect((await on.put(id)).status).toBe(201);
  expect((await on.patch(id, { plan_id: ids.otherPlan })).status).toBe(200);
  expect((await on.remove(id)).status).toBe(200);
});

it('13f: answers 202 if the work takes longer than BERTH_SYNC_WAIT_MS', async () => {
  const hasty = await makeOsbBroker(inject('postgres'), { syncWaitMs: 50 });
  try {
    const id = randomUUID();
    hasty.faults.block('start');
    expect((await hasty.put(id)).status).toBe(202);
    hasty.faults.unblock();
    await hasty.ended(id);
  } finally {
    await hasty.stop();
  }
});

it('13g: waits 2500 ms if BERTH_SYNC_WAIT_MS is not set', () => {
  expect(readSettings({}).syncWaitMs).toBe(2500);
});

it('13h: answers 202 to every create, delete and update with work to do if BERTH_SYNC_WAIT_MS is 0', async () => {
  const id = randomUUID();
  const ask = (method: 'put' | 'patch' | 'delete', query: string, body?: object) =>
    on.ask(method, `${instance(id)}?${accepting}${query}`, body, apart);
  on.operationOf(await ask('put', '', provisionBody));
  await on.ended(id);
  on.operationOf(await ask('patch', '', { service_id: ids.service, plan_id: ids.otherPlan }));
  await on.ended(id);
  on.operationOf(await ask('delete', `&${hints}`));
  await on.ended(id);
  expect((await on.get(id)).status).toBe(404);
});

it('14: sends a URL-safe, short operation in every 202', async () => {
  const id = randomUUID();
  const seen = new Set<string>();
  const look = (operation: string) => {
    expect(operation).toMatch(/^[A-Za-z0-9._~-]{1,10000}$/);
    seen.add(operation);
    return Promise.resolve();
  };
  await on.duringCreate(id, look);
  await on.duringUpdate(id, look);
  await on.duringDelete(id, look);
  expect(seen.size).toBe(3);
  expect(seen).not.toContain('null');
});

it('15a: answers 404 for an instance id that was never used', async () => {
  expect((await on.last(randomUUID())).status).toBe(404);
  expect((await on.last(randomUUID(), `?operation=${randomUUID()}`)).status).toBe(404);
});

it('15b: answers 404 for a binding id that was never used, with or without an instance', async () => {
  expect((await lastOfBinding(await on.newInstance(), 'never')).status).toBe(404);
  expect((await lastOfBinding(randomUUID(), 'never')).status).toBe(404);
});

it('15c: answers 200 succeeded for a deleted instance or binding whose operation is still recorded', async () => {
  const id = await on.newInstance();
  await on.bind(id, 'b');
  expect(await lastOfBinding(id, 'b')).toMatchObject({ status: 200, body: { state: 'succeeded' } });
  await on.unbind(id, 'b');
  expect(await lastOfBinding(id, 'b')).toMatchObject({ status: 200, body: { state: 'succeeded' } });
  await on.remove(id);
  expect(await on.last(id)).toMatchObject({ status: 200, body: { state: 'succeeded' } });
});

it('15d: retains the operation of a deleted instance for at least 7 days', async () => {
  const id = await on.newInstance();
  await on.bind(id, 'b');
  await on.remove(id);
  await age(id, 8);
  await on.broker
    .database('bindings')
    .where({ osb_id: 'b' })
    .whereNotNull('revoked_at')
    .update({ revoked_at: daysAgo(8) });
  await deleteOldOperations(on.broker);
  expect(await on.last(id)).toMatchObject({ status: 200, body: { state: 'succeeded' } });
  expect((await lastOfBinding(id, 'b')).status).toBe(200);
});

it('15e: answers 410 if only the id is left, and retains the operations of a live instance', async () => {
  const [dead, living] = [await on.newInstance(), await on.newInstance()];
  await on.bind(dead, 'b');
  await on.remove(dead);
  await age(dead, 31);
  await age(living, 31);
  await deleteOldOperations(on.broker);
  expect(await on.last(dead)).toMatchObject({ status: 410, body: {} });
  expect((await on.last(living)).status).toBe(200);
});

it('15f: answers 410 for a binding of which only the id is left', async () => {
  const id = await on.newInstance();
  await on.bind(id, 'gone');
  await on.unbind(id, 'gone');
  await on.broker
    .database('bindings')
    .where({ osb_id: 'gone' })
    .update({ revoked_at: daysAgo(31) });
  expect(await lastOfBinding(id, 'gone')).toMatchObject({ status: 410, body: {} });
});

it('15g: deletes old operations in batches, with the database role of the worker', async () => {
  const dead = [await on.newInstance(), await on.newInstance()];
  for (const id of dead) {
    await on.remove(id);
    await age(id, 31);
  }
  const { records } = on.broker.workerStore;
  const month = 30 * 24 * 3600 * 1000;
  const counts = [];
  for (let round = 0; round < 3; round += 1) counts.push(await records.deleteOldOperations(month, 3));
  expect(counts).toEqual([3, 1, 0]);
});

it.each(['not-ours', randomUUID(), '%F0%9F%98%80', "'"])(
  '15h: tolerates the unknown operation %s of an existing instance',
  async (operation) => {
    const id = await on.newInstance();
    expect(await on.last(id, `?operation=${operation}`)).toMatchObject({
      status: 200,
      body: { state: 'succeeded' },
    });
  },
);

it("15i: does not show another instance's operation", async () => {
  const [mine, other] = [await on.newInstance(), randomUUID()];
  await on.duringCreate(other, async (operation) => {
    expect((await on.last(mine, `?operation=${operation}`)).body['state']).toBe('succeeded');
  });
});

// Fails without the id in the order, or without the kinds, of `reported` in records/operations.ts.
it('15n: reports the named operation, otherwise the newest one that a platform started', async () => {
  const id = await on.newInstance();
  const operations = () => on.broker.database('operations');
  const created: OperationRow = await operations()
    .join('instances', 'instances.id', 'instance_id')
    .where({ osb_id: id })
    .first('operations.*');
  const later = async (kind: 'update' | 'restart', minutes: number, description: string) => {
    const operation = randomUUID();
    const createdAt = new Date(Date.now() + minutes * 60_000);
    const target = kind === 'update' ? '{}' : null;
    const row = { ...created, id: operation, kind, target, state: 'failed', description };
    await operations().insert({ ...row, created_at: createdAt });
    return operation;
  };
  await later('update', 1, 'an update that failed');
  const restart = await later('restart', 2, 'a restart of our own');
  const reported = async (query = '') => (await on.last(id, query)).body;
  expect(await reported(`?operation=${created.id}`)).toMatchObject({ state: 'succeeded' });
  for (const query of ['', `?operation=${restart}`]) {
    const expected = {
      state: 'failed',
      description: expect.stringContaining('an update that failed') as string,
    };
    expect(await reported(query)).toMatchObject(expected);
  }
});

it('15j: accepts service_id and plan_id as optional hints', async () => {
  const id = await on.newInstance();
  await on.bind(id, 'b');
  for (const query of [
    '',
    `?${hints}`,
    `?service_id=${ids.service}`,
    `?plan_id=${ids.plan}`,
    '?service_id=&plan_id=',
  ]) {
    expect((await on.last(id, query)).status).toBe(200);
    expect((await lastOfBinding(id, 'b', query)).status).toBe(200);
  }
});

it.each([
  'service_id=unknown',
  'plan_id=unknown',
  `service_id=${ids.service}&plan_id=unknown`,
  `service_id=${ids.plan}`,
])('15k: refuses ids that are not in the catalog with 400: ?%s', async (query) => {
  const id = await on.newInstance();
  await on.bind(id, 'b');
  expect((await on.last(id, `?${query}`)).status).toBe(400);
  expect((await lastOfBinding(id, 'b', `?${query}`)).status).toBe(400);
});

it('15l: accepts and logs another plan of the same offering', async () => {
  const id = await on.newInstance();
  const before = lines.length;
  const answer = await on.last(id, `?service_id=${ids.service}&plan_id=${ids.otherPlan}`);
  expect(answer.status).toBe(200);
  const stale = lines.slice(before).find(({ message }) => message.includes('stale plan'));
  expect(stale?.details).toMatchObject({ planId: ids.plan, sent: ids.otherPlan });
});

it('15m: expects the old plan while an update runs', async () => {
  const id = await on.newInstance();
  await on.duringUpdate(id, async (operation) => {
    const before = lines.length;
    const query = (plan: string) => `?service_id=${ids.service}&plan_id=${plan}&operation=${operation}`;
    expect((await on.last(id, query(ids.plan))).body['state']).toBe('in progress');
    expect(lines.slice(before).filter(({ message }) => message.includes('stale'))).toEqual([]);
    expect((await on.last(id, query(ids.otherPlan))).status).toBe(200);
    expect(lines.slice(before).filter(({ message }) => message.includes('stale'))).toHaveLength(1);
  });
});

it('16a: describes the current step', async () => {
  const id = randomUUID();
  await on.duringCreate(id, async () => {
    expect((await on.last(id)).body).toMatchObject({
      state: 'in progress',
      description: 'Starting the virtual machine',
    });
  });
  await on.duringDelete(id, async () => {
    expect((await on.last(id)).body['description']).toMatch(/^Destroying the virtual machine/);
  });
});

it('16b: sends Retry-After in whole seconds while an operation runs', async () => {
  const id = randomUUID();
  await on.duringCreate(id, async () => {
    expect((await on.last(id)).headers['retry-after']).toMatch(/^[1-9]\d*$/);
  });
});

it('17a: sends no instance_usable for a create, nor for an operation that runs or succeeded', async () => {
  const id = randomUUID();
  const keys = async () => Object.keys((await on.last(id)).body).sort();
  await on.failCreate(id);
  expect(await keys()).toEqual(['description', 'state']);
  await on.remove(id);
  expect(await keys()).toEqual(['description', 'state']);
  const other = randomUUID();
  await on.duringCreate(other, async () => {
    expect(Object.keys((await on.last(other)).body).sort()).toEqual(['description', 'state']);
  });
});

it('17b: reports after a failed update that the instance is usable and the update repeatable', async () => {
  const id = await on.newInstance();
  await on.failUpdate(id);
  expect((await on.last(id)).body).toMatchObject({
    state: 'failed',
    instance_usable: true,
    update_repeatable: true,
  });
  expect((await on.get(id)).body).toMatchObject({ plan_id: ids.plan });
  expect((await on.bind(id, 'b')).status).toBe(201);
  expect((await on.patch(id, { plan_id: ids.otherPlan })).status).toBe(200);
});

it('17c: reports after a failed delete that the instance is unusable, and no update_repeatable', async () => {
  const id = await on.newInstance();
  await on
    .duringDelete(id, async (operation) => {
      await on.broker
        .database('operations')
        .where({ id: operation })
        .update({ deadline: daysAgo(1) });
      on.faults.fail('destroy', 1);
    })
    .catch(() => undefined);
  const { body } = await on.last(id);
  if (body['state'] !== 'failed') throw new Error(`the delete did not fail: ${JSON.stringify(body)}`);
  expect(body['instance_usable']).toBe(false);
  expect(body).not.toHaveProperty('update_repeatable');
  expect((await on.bind(id, 'b')).status).toBe(422);
  // The platform retries, and the delete succeeds.
  expect((await on.remove(id)).status).toBe(200);
});

it("18a: fails an operation that can't end in time, after cleaning up", async () => {
  const id = randomUUID();
  on.faults.block('start');
  on.faults.block('destroy');
  const operation = on.operationOf(await on.ask('put', `${instance(id)}?${accepting}`, provisionBody, apart));
  await on.faults.reached('start');
  await on.broker
    .database('operations')
    .where({ id: operation })
    .update({ deadline: daysAgo(1) });
  on.faults.fail('start', 1);
  on.faults.unblock('start');
  await on.faults.reached('destroy');
  const { body } = await on.last(id);
  expect(body['state']).toBe('in progress');
  expect(body['description']).toMatch(/^Destroying .*timed out/);
  on.faults.unblock('destroy');
  expect((await on.ended(id))['description']).toMatch(/timed out/);
  expect((await on.last(id)).body['state']).toBe('failed');
  const hosts = await on.broker.database('hosts').whereNot('state', 'destroyed').pluck('instance_id');
  const row = (await on.broker.database('instances').where({ osb_id: id }).first()) as { id: string };
  expect(hosts).not.toContain(row.id);
});

it('18b: sets a deadline that leaves time to clean up before the platform stops polling', async () => {
  const id = randomUUID();
  await on.duringCreate(id, async (operation) => {
    const row = (await on.broker.database('operations').where({ id: operation }).first()) as {
      created_at: Date;
      deadline: Date;
    };
    const seconds = (row.deadline.getTime() - row.created_at.getTime()) / 1000;
    expect(seconds).toBeGreaterThan(60);
    expect(seconds).toBeLessThanOrEqual(maximumPollingSeconds - 60);
  });
});

it('18c: ends an update, including its rollback, before the platform stops polling', async () => {
  const id = await on.newInstance();
  await on.duringUpdate(id, async (operation) => {
    const row = (await on.broker.database('operations').where({ id: operation }).first()) as {
      created_at: Date;
      deadline: Date;
    };
    const { rollbackBudgetMs = 0 } = workflows.update;
    expect(rollbackBudgetMs).toBeGreaterThan(0);
    expect(row.deadline.getTime()).toBeGreaterThan(row.created_at.getTime());
    const ends = row.deadline.getTime() + rollbackBudgetMs - row.created_at.getTime();
    expect(ends / 1000).toBeLessThan(maximumPollingSeconds - 60);
  });
});
