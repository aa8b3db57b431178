import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, inject, it } from 'vitest';
import { noRegistries } from '../../src/core/hypervisor/host-spec.ts';
import { beginOperation } from '../../src/core/broker/begin-operation.ts';
import type { Faults } from '../../src/hypervisors/with-faults.ts';
import { hints, instance, makeTestBroker, provisionBody, type TestBroker } from '../support/broker.ts';
import { eventually } from '../support/eventually.ts';

let broker: TestBroker;
let before: Faults['before'] = () => undefined;

beforeEach(async () => {
  before = () => undefined;
  broker = await makeTestBroker(inject('postgres'), {
    slots: 220,
    faults: { before: (act, hostId) => before(act, hostId) },
  });
});
afterEach(() => broker.stop());

const begin = async (id: string) => {
  const answer = await broker
    .askAsynchronous('put', `${instance(id)}?accepts_incomplete=true`)
    .send(provisionBody);
  expect(answer.status).toBe(202);
};
const last = async (id: string) =>
  (await broker.ask('get', `${instance(id)}/last_operation`)).body as { state: string; description: string };
const ended = (id: string) =>
  eventually('the operation has ended', async () => {
    const report = await last(id);
    return report.state === 'in progress' ? undefined : report;
  });
/** Until so many transactions wait for a lock. */
const waiting = (count: number) =>
  eventually('they wait for each other', async () => {
    const { rows } = await broker.database.raw<{ rows: unknown[] }>(
      `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
    );
    return rows.length === count;
  });
const livingHosts = async () => (await broker.store.records.livingHosts()).length;

describe('an operation', () => {
  it('goes on where a worker that was stopped has put it down', async () => {
    let letGo: () => void = () => undefined;
    const held = new Promise<void>((resolve) => (letGo = resolve));
    before = (act) => (act === 'identify' ? held : undefined);
    const first = broker.startWorker('first');
    const id = randomUUID();
    await begin(id);
    await eventually('the first worker waits', async () => (await last(id)).description.includes('identity'));
    const stopping = first.stop();
    letGo();
    await stopping;
    expect((await last(id)).state).toBe('in progress');
    const acts: string[] = [];
    before = (act) => void acts.push(act);
    broker.startWorker('second');
    expect((await ended(id)).state).toBe('succeeded');
    // From its step, not from the beginning.
    expect(acts).not.toContain('prepare');
    expect(await livingHosts()).toBe(1);
  });

  it('is taken over from a worker that has fallen silent, whose later writes are refused', async () => {
    const { records } = broker.store;
    const id = randomUUID();
    await begin(id);
    const silent = await records.leaseOperation('silent', 50);
    if (silent === undefined) throw new Error('there is nothing to lease');
    expect(await records.leaseOperation('other', 1000)).toBeUndefined();
    const taken = await eventually('the lease has run out', () => records.leaseOperation('other', 1000));
    expect(taken.id).toBe(silent.id);
    expect(taken.fence).toBeGreaterThan(silent.fence);
    const progress = { step: 'start', description: 'late', failure: undefined, attempts: 0 };
    expect(await records.renewLease(silent, 1000)).toBe(false);
    expect(await records.recordProgress(silent, progress)).toBe(false);
    expect(await records.rescheduleOperation(silent, { ...progress, afterMs: 0 })).toBe(false);
    const outcome = { state: 'succeeded', description: 'late', instance: 'ready' } as const;
    expect(await records.finishOperation(silent, outcome)).toBe(false);
    expect(await records.recordProgress(taken, progress)).toBe(true);
    expect((await broker.ask('get', instance(id))).status).toBe(404);
  });

  it('tries again what fails, and then succeeds', async () => {
    let failures = 2;
    before = (act) => {
      if (act !== 'start' || failures === 0) return;
      failures -= 1;
      throw new Error('out of order');
    };
    broker.startWorker();
    const id = randomUUID();
    await begin(id);
    expect((await ended(id)).state).toBe('succeeded');
  });

  it('that can not succeed is undone, says why, and leaves nothing', async () => {
    before = (act) => {
      if (act === 'start') throw new Error('QEMU said no');
    };
    broker.startWorker();
    const id = randomUUID();
    await begin(id);
    const report = await ended(id);
    expect(report.state).toBe('failed');
    expect(report.description).toContain('QEMU said no');
    expect(await livingHosts()).toBe(0);
    expect(await broker.hypervisor.list()).toEqual([]);
    // Its id is not used again before it was deleted, and it can be deleted.
    const again = await broker.ask('put', `${instance(id)}?accepts_incomplete=true`).send(provisionBody);
    expect(again.status).toBe(409);
    const removed = await broker.ask('delete', `${instance(id)}?accepts_incomplete=true&${hints}`);
    expect(removed.status).toBe(200);
  });

  it('of 200 at once ends rightly each time, with two workers', { timeout: 480_000 }, async () => {
    broker.startWorker('one');
    broker.startWorker('two');
    const all = Array.from({ length: 200 }, () => randomUUID());
    await Promise.all(all.map(begin));
    await eventually(
      'all are created',
      async () =>
        (await livingHosts()) === 200 &&
        (await Promise.all(all.map(last))).every(({ state }) => state === 'succeeded'),
      {
        deadlineMs: 100_000,
        everyMs: 500,
      },
    );
    expect(await broker.hypervisor.list()).toHaveLength(200);
    const slots = (await broker.store.records.livingHosts()).map(({ slot }) => slot);
    expect(new Set(slots).size).toBe(200);
  });

  // Each seen to fail where such a step took a turn.
  it.each(['identify', 'connect', 'engineAnswers'] as const)(
    'waits for no other, however many of those hang in %s',
    async (act) => {
      const stuck = new Set<string>();
      let letGo: () => void = () => undefined;
      const held = new Promise<void>((resolve) => (letGo = resolve));
      let hangs = true;
      before = (seen, hostId) => {
        if (seen !== act || (!hangs && !stuck.has(hostId))) return undefined;
        stuck.add(hostId);
        return held;
      };
      await broker.hypervisor.makeTemplate(
        { planName: 'small', shape: { vcpus: 1, memoryMib: 768, diskGib: 4 } },
        () => undefined,
        new AbortController().signal,
      );
      broker.startWorker();
      const hanging = Array.from({ length: 40 }, () => randomUUID());
      await Promise.all(hanging.map(begin));
      await eventually('all of them hang', () => stuck.size === hanging.length);
      hangs = false;
      const other = randomUUID();
      await begin(other);
      expect((await ended(other)).state).toBe('succeeded');
      letGo();
      for (const id of hanging) expect((await ended(id)).state).toBe('succeeded');
    },
  );

  // Seen as a deadlock, and a 500, where it locked the operation before its instance.
  it('that ends while a delete halts it lets the delete go first', async () => {
    const id = randomUUID();
    await begin(id);
    const operation = await broker.workerStore.records.leaseOperation('worker', 60_000);
    if (operation === undefined) throw new Error('there is no operation');
    const { ended: isEnded } = await broker.store.transaction(async (records) => {
      await records.instance(broker.platformId, id, 'lock');
      const ending = broker.workerStore.records.finishOperation(operation, {
        ...{ state: 'succeeded', description: 'Done', instance: 'ready' },
      });
      await waiting(1);
      await records.cancelOperation(operation.id, 'Halted');
      return { ended: ending };
    });
    expect(await isEnded).toBe(false);
    expect(await last(id)).toMatchObject({ state: 'failed', description: 'Halted' });
  });

  it('is refused, with nothing recorded, where no slot is free', async () => {
    await broker.database('slots').where('slot', '>', 1).delete();
    broker.startWorker();
    const id = randomUUID();
    await begin(id);
    await ended(id);
    const refused = await broker
      .ask('put', `${instance(randomUUID())}?accepts_incomplete=true`)
      .send(provisionBody);
    expect(refused.status).toBe(503);
    expect((refused.body as { description: string }).description).toContain('ports for 220 hosts');
    expect(await broker.database('instances')).toHaveLength(1);
    await broker.ask('delete', `${instance(id)}?accepts_incomplete=true&${hints}`);
    const next = await broker
      .ask('put', `${instance(randomUUID())}?accepts_incomplete=true`)
      .send(provisionBody);
    expect(next.status).toBe(201);
  });
});

describe('reconciliation', () => {
  it('brings back a host whose machine has gone, and destroys one that nobody knows', async () => {
    broker.startWorker();
    const id = randomUUID();
    await begin(id);
    await ended(id);
    const [host] = await broker.store.records.livingHosts();
    if (host === undefined) throw new Error('there is no host');
    await broker.hypervisor.stop(host.id);
    const orphan = {
      hostId: randomUUID(),
      slot: 200,
      planName: 'small',
      shape: host.shape,
      publishedPorts: { first: 29_000, count: 0 },
      egress: { kind: 'none' },
      registries: noRegistries,
    } as const;
    await broker.hypervisor.prepare(orphan);

    await broker.reconcile();
    await eventually('the machine runs again', async () => {
      const seen = await broker.hypervisor.list();
      const [now] = await broker.store.records.livingHosts();
      return seen.length === 1 && seen[0]?.state === 'running' && now?.engine !== undefined;
    });
    // The platform is told of its own operations only.
    expect(await last(id)).toMatchObject({ state: 'succeeded' });
    expect((await broker.ask('get', instance(id))).status).toBe(200);
  });

  it('brings back a host that runs and that nothing leads to, as an update can leave it that failed', async () => {
    broker.startWorker();
    const id = randomUUID();
    await begin(id);
    await ended(id);
    const [host] = await broker.store.records.livingHosts();
    if (host === undefined) throw new Error('there is no host');
    await broker.store.records.setHostUnreachable(host.id);
    await broker.reconcile();
    await eventually('something leads to it', async () => {
      const [now] = await broker.store.records.livingHosts();
      return now?.engine !== undefined;
    });
    const count = async () => (await broker.database('operations').where({ kind: 'restart' })).length;
    expect(await count()).toBe(1);
    await broker.reconcile();
    expect(await count()).toBe(1);
  });

  // Seen to fail with a unique violation where it took no lock.
  it('waits for a request that is about to begin an operation, and leaves the host to that', async () => {
    broker.startWorker();
    const id = randomUUID();
    await begin(id);
    await ended(id);
    const [host] = await broker.store.records.livingHosts();
    if (host === undefined) throw new Error('there is no host');
    await broker.hypervisor.stop(host.id);
    const { reconciling } = await broker.store.transaction(async (records) => {
      await records.instance(broker.platformId, id, 'lock');
      expect(await records.unfinishedOperation(host.instanceId)).toBeUndefined();
      const running = broker.reconcile();
      await Promise.race([running, waiting(1)]);
      await beginOperation(records, 'deprovision', host.instanceId);
      return { reconciling: running };
    });
    await reconciling;
    expect(await broker.database('operations').where({ kind: 'restart' })).toEqual([]);
  });

  it('leaves down what a delete has failed to destroy, and the delete is tried again until nothing is left', async () => {
    const worker = broker.startWorker();
    const id = randomUUID();
    await begin(id);
    await ended(id);
    const [host] = await broker.store.records.livingHosts();
    if (host === undefined) throw new Error('there is no host');
    before = (act) => {
      if (act === 'destroy') throw new Error('its disk is gone');
    };
    await broker.askAsynchronous('delete', `${instance(id)}?accepts_incomplete=true&${hints}`).expect(202);
    await eventually('the delete has failed', async () => {
      const now = broker.database.raw('clock_timestamp()');
      await broker.database('operations').where({ state: 'in progress' }).update({ run_after: now });
      worker.wake();
      return (await last(id)).state === 'failed';
    });
    // It was killed half-way.
    await broker.hypervisor.stop(host.id);
    const kinds = async () =>
      (await broker.database<{ kind: string }>('operations').orderBy('created_at')).map(({ kind }) => kind);
    await broker.reconcile();
    await broker.retryFailedDeletes();
    expect(await kinds()).toEqual(['provision', 'deprovision']);

    before = () => undefined;
    const earlier = broker.database.raw(`clock_timestamp() - interval '1 hour'`);
    await broker.database('instances').update({ updated_at: earlier });
    await broker.retryFailedDeletes();
    expect(await kinds()).toEqual(['provision', 'deprovision', 'deprovision']);
    expect((await ended(id)).state).toBe('succeeded');
    expect(await livingHosts()).toBe(0);
    expect(await broker.hypervisor.list()).toEqual([]);
    await broker.ask('delete', `${instance(id)}?accepts_incomplete=true&${hints}`).expect(410);
  });
});

it('a second operation on an instance is refused as concurrent, whoever begins it', async () => {
  await begin('i');
  const { id = '' } = (await broker.store.records.instance(broker.platformId, 'i')) ?? {};
  const beginning = broker.store.transaction((records) => beginOperation(records, 'restart', id));
  await expect(beginning).rejects.toMatchObject({ refusal: { status: 422, code: 'ConcurrencyError' } });
});

it('a transaction that Postgres undoes because of a deadlock is run again', async () => {
  const { database, store } = broker;
  const ids = await Promise.all(
    ['one', 'two'].map(async (name) => {
      await begin(name);
      return name;
    }),
  );
  let holding = 0;
  const lockBoth = (first: string, second: string) =>
    store.transaction(async (records) => {
      await records.instance(broker.platformId, first, 'lock');
      holding += 1;
      await eventually('each holds one', () => holding >= 2);
      await records.instance(broker.platformId, second, 'lock');
      return first;
    });
  const [one = '', two = ''] = ids;
  expect(await Promise.all([lockBoth(one, two), lockBoth(two, one)])).toEqual(ids);
  // One of them, twice.
  expect(holding).toBe(3);
  expect(await database('instances')).toHaveLength(2);
});
