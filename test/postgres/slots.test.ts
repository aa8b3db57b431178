import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, expect, inject, it } from 'vitest';
import type { PoolHost } from '../../src/core/model/host.ts';
import type { Records } from '../../src/core/ports/store.ts';
import { seedSlots, type SlotRules } from '../../src/postgres/database.ts';
import { createStore } from '../../src/postgres/store.ts';
import { ids, instance, makeTestBroker, provisionBody, type TestBroker } from '../support/broker.ts';

let broker: TestBroker;
beforeEach(async () => {
  broker = await makeTestBroker(inject('postgres'), { slots: 3, restSeconds: 3_600 });
  broker.startWorker();
});
afterEach(() => broker.stop());

/** The records of processes that were started with other port blocks. */
async function recordsWith(rules: Partial<SlotRules>): Promise<Records> {
  const all = { first: 40_000, size: 20, count: 10, restSeconds: 0, ...rules };
  await seedSlots(broker.database, all);
  return createStore(broker.database, all).records;
}

async function insert(records: Records, publishedPorts = 10): Promise<PoolHost> {
  const host = await records.insertPoolHost({
    ...{ id: randomUUID(), planName: 'small', publishedPorts, egress: { kind: 'none' } },
    shape: { vcpus: 1, memoryMib: 512, diskGib: 1 },
  });
  if (host === undefined) throw new Error('no slot is free');
  return host;
}

function expectDisjoint(hosts: readonly PoolHost[]): void {
  const blocks = hosts
    .map(({ publishedPorts: { first }, portBlock }) => [first, first + portBlock] as const)
    .sort(([one], [other]) => one - other);
  blocks.slice(1).forEach(([first], index) => {
    expect(first).toBeGreaterThanOrEqual(blocks[index]?.[1] ?? 0);
  });
}

// Each fails without looking for living hosts' ports when a slot is taken: hosts_share_no_port refused the insert.
it.each([
  ['smaller port blocks than before', { size: 50 }, { size: 20 }],
  ['larger port blocks than before', { size: 20 }, { size: 40 }],
  ['a range of ports that starts elsewhere', { first: 40_000 }, { first: 40_010 }],
])('slots: a host gets ports that no living host has, with %s', async (_, before, after) => {
  const former = await recordsWith(before);
  const hosts: PoolHost[] = [];
  while (hosts.length < 6) hosts.push(await insert(former));
  for (const gone of hosts.splice(2, 2)) await former.setHostDestroyed(gone.id);
  const present = await recordsWith(after);
  hosts.push(await insert(present), await insert(present));
  expectDisjoint(hosts);
});

it('slots: hosts that are recorded at once under different port blocks share no port', async () => {
  const [narrow, wide] = [await recordsWith({}), await recordsWith({ size: 50, count: 4 })];
  const inserted = await Promise.allSettled([insert(narrow), insert(wide), insert(narrow), insert(wide)]);
  const hosts = inserted.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  expect(hosts.length).toBeGreaterThan(0);
  expectDisjoint(hosts);
  // One that lost finds other ports in a later try.
  expectDisjoint([...hosts, await insert(narrow)]);
});

// Fails without the index on free slots: all of them are read and sorted.
it('slots: a create reads few of the free slots and of the hosts, however many there are', async () => {
  const records = await recordsWith({ first: 20_000, size: 5, count: 5_000 });
  await broker.database.raw(
    `UPDATE slots SET host_id = gen_random_uuid() WHERE slot <= 500;
     INSERT INTO hosts (id, plan_name, slot, vcpus, memory_mib, disk_gib, first_port, port_block, ports, egress, state)
     SELECT host_id, 'small', slot, 1, 512, 1, 20000 + (slot - 1) * 5, 5, 5, '{"kind":"none"}', 'parked' FROM slots WHERE slot <= 500`,
  );
  await broker.database.raw('VACUUM ANALYZE slots, hosts');
  const seen: { sql: string; bindings: unknown[] }[] = [];
  broker.database.on('query', (query: (typeof seen)[number]) => seen.push(query));
  await insert(records, 5);
  const taken = seen.find(({ sql }) => /UPDATE slots/.test(sql));
  const { rows } = await broker.database.transaction(async (transaction) => {
    await transaction('slots').update({ host_id: null }).where({ slot: 501 });
    return transaction.raw<{ rows: { 'QUERY PLAN': string }[] }>(
      `EXPLAIN ANALYZE ${taken?.sql.replaceAll(/\$\d+/g, '?') ?? ''}`,
      taken?.bindings as string[],
    );
  });
  const plan = rows.map((row) => row['QUERY PLAN']).join('\n');
  const read = [
    ...plan.matchAll(/Scan .*actual time=\S+ rows=([\d.]+) loops=(\d+)|Removed by .*: (\d+)/g),
  ].map(([, found = '0', loops = '1', removed = '0']) => Number(found) * Number(loops) + Number(removed));
  expect(read.length).toBeGreaterThan(1);
  expect(Math.max(...read), plan).toBeLessThan(50);
});

const create = (id: string, org: string) =>
  broker
    .ask('put', `${instance(id)}?accepts_incomplete=true`)
    .send({ ...provisionBody, organization_guid: org });
const remove = (id: string) =>
  broker.ask(
    'delete',
    `${instance(id)}?accepts_incomplete=true&service_id=${ids.service}&plan_id=${ids.plan}`,
  );
const slotOf = async (id: string) => {
  const found = await broker.store.records.instance(broker.platformId, id);
  return (await broker.store.records.hostOfInstance(found?.id ?? ''))?.slot;
};

// Fails without the condition on `rests_until`: the other tenant got the slot in the same second.
it("slots: a deleted host's slot rests before another tenant's host gets it", async () => {
  expect((await create('first', 'org-1')).status).toBe(201);
  const slot = await slotOf('first');
  expect((await remove('first')).status).toBe(200);
  expect((await create('second', 'org-2')).status).toBe(201);
  expect((await create('third', 'org-2')).status).toBe(201);
  expect([await slotOf('second'), await slotOf('third')]).not.toContain(slot);

  const refused = await create('fourth', 'org-2');
  expect(refused.status).toBe(503);
  expect(refused.body).toMatchObject({
    description: expect.stringMatching(/in use, or were until a few minutes ago/) as string,
  });
  expect(await broker.store.records.freeSlots()).toBe(0);

  // The same tenant may get it back at once.
  expect((await create('fifth', 'org-1')).status).toBe(201);
  expect(await slotOf('fifth')).toBe(slot);
});

it('slots: a slot that has rested is given to any tenant', async () => {
  await create('first', 'org-1');
  const slot = await slotOf('first');
  await remove('first');
  await create('second', 'org-2');
  await create('third', 'org-2');
  await broker.database('slots').update({ rests_until: new Date(Date.now() - 1) });
  expect((await create('fourth', 'org-2')).status).toBe(201);
  expect(await slotOf('fourth')).toBe(slot);
});

it('slots: a host of the pool that never had a tenant leaves a slot that does not rest', async () => {
  const host = await insert(broker.store.records);
  await broker.store.records.setHostDestroyed(host.id);
  expect(await broker.store.records.freeSlots()).toBe(3);
});
