import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, inject, it } from 'vitest';
import type { HostSpec } from '../../src/core/hypervisor/host-spec.ts';
import { noRegistries } from '../../src/core/hypervisor/host-spec.ts';
import type { Faults } from '../../src/hypervisors/with-faults.ts';
import { adoptHost } from '../../src/postgres/adopt-host.ts';
import { createDifferenceRecords, createHostDifferences } from '../../src/postgres/host-differences.ts';
import { recordDifferences } from '../../src/controllers/record-differences.ts';
import {
  bindBody,
  binding,
  hints,
  instance,
  makeTestBroker,
  provisionBody,
  type TestBroker,
} from '../support/broker.ts';
import { eventually } from '../support/eventually.ts';

let broker: TestBroker;
let faults: Faults;
beforeEach(async () => {
  faults = { before: () => undefined };
  broker = await makeTestBroker(inject('postgres'), {
    faults: { before: (method, hostId) => faults.before(method, hostId) },
    deadlines: { longMs: 3_000, shortMs: 3_000 },
  });
  broker.startWorker();
});
afterEach(() => broker.stop());

const create = async (): Promise<{ id: string; hostId: string; instanceId: string }> => {
  const id = randomUUID();
  const answer = await broker.ask('put', `${instance(id)}?accepts_incomplete=true`).send(provisionBody);
  expect(answer.status).toBe(201);
  const host = (await broker.store.records.livingHosts()).at(-1);
  if (host === undefined) throw new Error('there is no host');
  return { id, hostId: host.id, instanceId: host.instanceId };
};
const remove = (id: string) => broker.ask('delete', `${instance(id)}?accepts_incomplete=true&${hints}`);

/** As a database that has lost every transaction since before the instance was created. */
async function forget({ instanceId, hostId }: { instanceId: string; hostId: string }): Promise<void> {
  await broker.database.raw(
    `DELETE FROM host_checks WHERE host_id = :hostId; DELETE FROM operations WHERE instance_id = :instanceId;
     DELETE FROM bindings WHERE instance_id = :instanceId; UPDATE slots SET host_id = NULL WHERE host_id = :hostId;
     DELETE FROM hosts WHERE id = :hostId; DELETE FROM instances WHERE id = :instanceId`.replaceAll(
      /:(\w+)/g,
      (_, name: string) => `'${name === 'hostId' ? hostId : instanceId}'`,
    ),
  );
}
const existing = async () => (await broker.hypervisor.list()).map(({ hostId }) => hostId).sort();
const differences = () => createHostDifferences(broker.database);
const kinds = async () => (await differences().list()).map(({ host, kind }) => [host, kind]);
const halfMade = async (slot: number): Promise<string> => {
  const spec: HostSpec = {
    ...{ hostId: randomUUID(), slot, planName: 'small', registries: noRegistries, egress: { kind: 'none' } },
    ...{ shape: { vcpus: 1, memoryMib: 768, diskGib: 4 }, publishedPorts: { first: 29_000, count: 0 } },
  };
  await broker.hypervisor.prepare(spec);
  return spec.hostId;
};
const rounds = async (count: number) => {
  for (let round = 0; round < count; round += 1) await broker.reconcile();
};

describe('orphans', () => {
  // Fails if reconciliation destroys what is not on record.
  it('orphans: a database that has forgotten its hosts costs none of them', async () => {
    const hosts = [await create(), await create(), await create()];
    for (const one of hosts) await forget(one);
    await rounds(3);
    expect(await existing()).toEqual(hosts.map(({ hostId }) => hostId).sort());
    expect((await kinds()).map(([, kind]) => kind)).toEqual(['owned', 'owned', 'owned']);
  });

  it('orphans: a new host gets neither slot nor ports of one that Postgres has forgotten', async () => {
    const forgotten = await create();
    const [row] = await broker.store.records.livingHosts();
    await forget(forgotten);
    await rounds(1);
    await create();
    const [next] = await broker.store.records.livingHosts();
    expect(next?.slot).not.toBe(row?.slot);
    expect(next?.publishedPorts.first).not.toBe(row?.publishedPorts.first);
  });

  // Fails if only reconciliation records the differences: the new host has taken the slot before its first round.
  it('orphans: a database that has forgotten a host can be used at once, and the host be adopted later', async () => {
    const forgotten = await create();
    await forget(forgotten);
    const { store, hypervisor, notes } = broker;
    const records = createDifferenceRecords(broker.database);
    expect(await recordDifferences({ store, hypervisor, notes, differences: records })).toBe(1);
    await create();
    await differences().adopt(forgotten.hostId);
    expect((await broker.store.records.livingHosts()).map(({ id }) => id)).toContain(forgotten.hostId);
  });

  it('orphans: a host that Postgres has as destroyed is destroyed, one in a round and not at first sight', async () => {
    const hosts = [await create(), await create()];
    for (const { hostId } of hosts) await broker.store.records.setHostDestroyed(hostId);
    await rounds(1);
    expect(await existing()).toHaveLength(2);
    await rounds(1);
    expect(await existing()).toHaveLength(1);
    await rounds(1);
    expect(await existing()).toEqual([]);
    await rounds(1);
    expect(await kinds()).toEqual([]);
  });

  // Fails if the same one is tried in each round, or if a round waits for it.
  it('orphans: one whose destroy hangs keeps no other one from being destroyed', async () => {
    const hosts = [await create(), await create(), await create()];
    for (const { hostId } of hosts) await broker.store.records.setHostDestroyed(hostId);
    await rounds(1);
    const [hanging] = (await differences().list()).map(({ host }) => host);
    faults.before = (method, hostId) =>
      method === 'destroy' && hostId === hanging ? new Promise<void>(() => undefined) : undefined;
    await rounds(3);
    expect(await existing()).toEqual([hanging]);
    faults.before = () => undefined;
    await rounds(1);
    expect(await existing()).toEqual([]);
  });

  it('orphans: one that no tenant has used is destroyed after the grace period', async () => {
    const left = await halfMade(30);
    await rounds(3);
    expect(await existing()).toEqual([left]);
    await broker.database('host_differences').update({ first_seen_at: new Date(0) });
    await rounds(1);
    expect(await existing()).toEqual([]);
  });

  it.each([
    ['there are more than three', () => halfMade(34)],
    ['a tenant has used another one', async () => forget(await create())],
  ])('orphans: none is destroyed without an operator while %s', async (_, makeAnother) => {
    await makeAnother();
    for (const slot of [30, 31, 32]) await halfMade(slot);
    await rounds(1);
    await broker.database('host_differences').update({ first_seen_at: new Date(0) });
    await rounds(3);
    expect(await existing()).toHaveLength(4);
  });

  it('orphans: an operator removes one, and the others stay', async () => {
    const [first, second] = [await create(), await create()];
    await forget(first);
    await forget(second);
    await rounds(1);
    expect(await differences().requestRemoval(randomUUID())).toBe(false);
    expect(await differences().requestRemoval(first.hostId)).toBe(true);
    await rounds(2);
    expect(await existing()).toEqual([second.hostId]);
    expect(await kinds()).toEqual([[second.hostId, 'owned']]);
  });
});

describe('adoption', () => {
  it('adoption: gives a forgotten host back to its instance, which is recorded again', async () => {
    const lost = await create();
    const [before] = await broker.store.records.livingHosts();
    await forget(lost);
    expect((await broker.ask('get', instance(lost.id))).status).toBe(404);
    await rounds(1);
    await differences().adopt(lost.hostId);
    await broker.reconcile();
    await eventually('it is connected', async () => {
      const [host] = await broker.store.records.livingHosts();
      return host?.engine !== undefined;
    });
    const [after] = await broker.store.records.livingHosts();
    const { id, slot, instanceId, shape, publishedPorts } = after ?? {};
    expect({ id, slot, instanceId, shape, publishedPorts }).toEqual({
      ...{ id: lost.hostId, slot: before?.slot, instanceId: lost.instanceId },
      ...{ shape: before?.shape, publishedPorts: before?.publishedPorts },
    });
    expect((await broker.ask('put', binding(lost.id, 'again')).send(bindBody)).status).toBe(201);
    expect((await remove(lost.id)).status).toBe(200);
    await rounds(1);
    expect([await existing(), await kinds()]).toEqual([[], []]);
  });

  it('adoption: gives back a host whose claim was lost, so that its row says that it is parked', async () => {
    const lost = await create();
    await forget(lost);
    const [seen] = await broker.hypervisor.list();
    // Parked with the size of a smaller plan than its instance's.
    await broker.database('hosts').insert({
      ...{ id: lost.hostId, plan_name: 'tiny', slot: seen?.slot, vcpus: 1, memory_mib: 512, disk_gib: 2 },
      ...{ first_port: 20_000, ports: 2, port_block: 20, egress: '{"kind":"none"}', state: 'parked' },
    });
    await broker.database('slots').where({ slot: seen?.slot }).update({ host_id: lost.hostId });
    await rounds(1);
    expect(await kinds()).toEqual([[lost.hostId, 'disputed']]);
    await differences().adopt(lost.hostId);
    expect((await broker.store.records.livingHosts())[0]).toMatchObject({
      ...{ instanceId: lost.instanceId, planName: 'small' },
      ...{ shape: { vcpus: 1, memoryMib: 768, diskGib: 4 }, publishedPorts: { first: 20_000, count: 10 } },
    });
  });

  it('adoption: is refused, with nothing changed, if the slot is taken, the id is used or the note is missing', async () => {
    const lost = await create();
    await forget(lost);
    const [{ slot = 0 } = {}] = await broker.hypervisor.list();
    await broker.database('slots').where({ slot }).update({ host_id: randomUUID() });
    await rounds(1);
    await expect(differences().adopt(lost.hostId)).rejects.toThrow(`slot ${slot} belongs to another host`);
    await broker.database('slots').where({ slot }).update({ host_id: null });
    expect((await broker.ask('get', instance(lost.id))).status).toBe(404);

    await broker
      .ask('put', `${instance(lost.id)}?accepts_incomplete=true`)
      .send(provisionBody)
      .expect(201);
    await expect(differences().adopt(lost.hostId)).rejects.toThrow('once more');
    await broker.notes.delete(lost.hostId);
    await rounds(1);
    await expect(differences().adopt(lost.hostId)).rejects.toThrow('owners/');
    const left = await halfMade(40);
    await rounds(1);
    await expect(differences().adopt(left)).rejects.toThrow('No tenant has used it');
    expect(await broker.database('hosts').where({ id: lost.hostId })).toEqual([]);
  });

  it('adoption: the database role of the api may do it', async () => {
    const lost = await create();
    await forget(lost);
    await rounds(1);
    const { openDatabase } = await import('../../src/postgres/database.ts');
    const api = openDatabase(broker.urls.api, { maxConnections: 1 });
    await api.transaction((transaction) => adoptHost(transaction, lost.hostId)).finally(() => api.destroy());
    expect((await broker.store.records.livingHosts()).map(({ id }) => id)).toEqual([lost.hostId]);
  });
});

// Fails if it is restarted: the tenant would get an empty disk in place of its data, without a word.
it('missing hosts: one of which nothing exists is reported and not made again; an operator removes its record', async () => {
  const { id, hostId } = await create();
  await broker.hypervisor.destroy(hostId);
  await rounds(2);
  expect(await kinds()).toEqual([[hostId, 'missing']]);
  expect(await existing()).toEqual([]);
  expect(await broker.database('operations').where({ kind: 'restart' })).toEqual([]);
  await differences().requestRemoval(hostId);
  await rounds(2);
  expect([await kinds(), await broker.store.records.livingHosts()]).toEqual([[], []]);
  expect((await remove(id)).status).toBe(200);
});
