/* eslint-disable max-lines -- all tests share one broker and its fault control */
import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, inject, it } from 'vitest';
import { noRegistries } from '../../src/core/hypervisor/host-spec.ts';
import { beginOperation } from '../../src/core/broker/begin-operation.ts';
import type { Faults } from '../../src/hypervisors/with-faults.ts';
import { hints, instance, makeTestBroker, provisionBody, type TestBroker } from '../support/broker.ts';
import { eventually } from '../support/eventually.ts';
import { createLineLogger } from '../support/logger.ts';

let broker: TestBroker;
let log: ReturnType<typeof createLineLogger>;
let before: Faults['before'] = () => undefined;

beforeEach(async () => {
  before = () => undefined;
  log = createLineLogger();
  broker = await makeTestBroker(inject('postgres'), {
    logger: log.logger,
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
/** Waits until `count` transactions wait for a lock. */
const waiting = (count: number) =>
  eventually('they wait for each other', async () => {
    const { rows } = await broker.database.raw<{ rows: unknown[] }>(
      `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
    );
    return rows.length === count;
  });
const livingHosts = async () => (await broker.store.records.livingHosts()).length;

describe('an operation', () => {
  it('operation: continues from its step after its worker was stopped', async () => {
    let release: () => void = () => undefined;
    const blocked = new Promise<void>((resolve) => (release = resolve));
    before = (act) => (act === 'identify' ? blocked : undefined);
    const first = broker.startWorker('first');
    const id = randomUUID();
    await begin(id);
    await eventually('the first worker waits', async () => (await last(id)).description.includes('identity'));
    const stopping = first.stop();
    release();
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

  // Fails if a further attempt only asks the guest again.
  it('operation: starts a VM again that ends while its guest or its engine is waited for', async () => {
    for (const step of ['identify', 'connect'] as const) {
      let times = 0;
      before = async (act, hostId) => {
        if (act !== step || (times += 1) > 1) return;
        await broker.hypervisor.stop(hostId);
      };
      const worker = broker.startWorker(step);
      const id = randomUUID();
      await begin(id);
      expect(await ended(id)).toMatchObject({ state: 'succeeded' });
      expect(times).toBeGreaterThan(1);
      await worker.stop();
    }
  });

  // Fails if a VM that keeps ending is started again without end.
  it('operation: fails if its VM ends at each attempt', async () => {
    let starts = 0;
    before = async (act, hostId) => {
      if (act === 'start') starts += 1;
      if (act === 'identify') await broker.hypervisor.stop(hostId);
    };
    broker.startWorker();
    const id = randomUUID();
    await begin(id);
    expect(await ended(id)).toMatchObject({ state: 'failed' });
    // Once, and before each of the two further attempts.
    expect(starts).toBe(3);
  });

  // Fails if each attempt boots it: a tenant's broken guest would take five boots for each restart.
  it('operation: a restart whose VM ends starts it once, and is repeated later', async () => {
    const worker = broker.startWorker();
    const id = randomUUID();
    await begin(id);
    await ended(id);
    const host = (await broker.store.records.livingHosts())[0];
    if (host === undefined) throw new Error('there is no host');
    await broker.hypervisor.stop(host.id);
    let starts = 0;
    before = async (act, hostId) => {
      if (act === 'start') starts += 1;
      if (act === 'identify') await broker.hypervisor.stop(hostId);
    };
    await broker.store.transaction((records) => beginOperation(records, 'restart', host.instanceId));
    await eventually(
      'the restart has failed',
      async () =>
        (await broker.database('operations').where({ kind: 'restart', state: 'failed' })).length > 0,
    );
    expect(starts).toBe(1);
    await worker.stop();
  });

  it('operation: another worker leases it from a silent one, whose later writes are refused', async () => {
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

  it('operation: retries a failing step, and then succeeds; the log lines have the host', async () => {
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
    const [host] = await broker.store.records.livingHosts();
    const hostsOf = (message: string) =>
      log.lines.filter((line) => line.message === message).map(({ details }) => details['host']);
    expect(hostsOf('A step of an operation failed')).toEqual([host?.id, host?.id]);
    await eventually('the end is logged', () => hostsOf('An operation has ended').length === 1);
    expect(hostsOf('An operation has ended')).toEqual([host?.id]);
  });

  it('operation: is rolled back if it can not succeed, reports the reason, and leaves nothing', async () => {
    before = (act) => {
      // Fails without the escapes of errorMessage: Postgres refuses a NUL, so the operation was never rolled back.
      if (act === 'start') throw new Error(`QEMU said no\u0000\n\u001b[2J${'x'.repeat(100_000)}`);
    };
    broker.startWorker();
    const id = randomUUID();
    await begin(id);
    const report = await ended(id);
    expect(report.state).toBe('failed');
    expect(report.description).toContain('QEMU said no\\u0000 \\u001b[2J');
    expect(report.description.length).toBeLessThanOrEqual(2_000);
    expect(await livingHosts()).toBe(0);
    expect(await broker.hypervisor.list()).toEqual([]);
    // Its id can't be reused before it is deleted, and it can be deleted.
    const again = await broker.ask('put', `${instance(id)}?accepts_incomplete=true`).send(provisionBody);
    expect(again.status).toBe(409);
    const removed = await broker.ask('delete', `${instance(id)}?accepts_incomplete=true&${hints}`);
    expect(removed.status).toBe(200);
  });

  it('operation: 200 at once all succeed with two workers', { timeout: 480_000 }, async () => {
    broker.startWorker('one');
    broker.startWorker('two');
    const all = Array.from({ length: 200 }, () => randomUUID());
    // More requests at a time wait longer for a database connection than a request may on a busy node: 503.
    for (let from = 0; from < all.length; from += 20)
      await Promise.all(all.slice(from, from + 20).map(begin));
    await eventually(
      'all are created',
      async () =>
        (await livingHosts()) === 200 &&
        (await Promise.all(all.map(last))).every(({ state }) => state === 'succeeded'),
      {
        deadlineMs: 300_000,
        everyMs: 500,
      },
    );
    expect(await broker.hypervisor.list()).toHaveLength(200);
    const slots = (await broker.store.records.livingHosts()).map(({ slot }) => slot);
    expect(new Set(slots).size).toBe(200);
  });

  // Each fails if such a step counts toward the limit on concurrent steps.
  it.each(['identify', 'connect', 'engineAnswers'] as const)(
    'operation: is not delayed by 40 others that hang in %s',
    async (act) => {
      const stuck = new Set<string>();
      let release: () => void = () => undefined;
      const blocked = new Promise<void>((resolve) => (release = resolve));
      let hangs = true;
      before = (seen, hostId) => {
        if (seen !== act || (!hangs && !stuck.has(hostId))) return undefined;
        stuck.add(hostId);
        return blocked;
      };
      await broker.hypervisor.makeTemplate(() => undefined, new AbortController().signal);
      broker.startWorker();
      const hanging = Array.from({ length: 40 }, () => randomUUID());
      await Promise.all(hanging.map(begin));
      await eventually('all of them hang', () => stuck.size === hanging.length);
      hangs = false;
      const other = randomUUID();
      await begin(other);
      expect((await ended(other)).state).toBe('succeeded');
      release();
      for (const id of hanging) expect((await ended(id)).state).toBe('succeeded');
    },
  );

  // Fails with a deadlock, and a 500, if the operation is locked before its instance.
  it('operation: ends after the delete that cancels it at the same time', async () => {
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

  it('operation: is refused, with nothing recorded, if no slot is free', async () => {
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
  it('reconciliation: restarts a host whose VM has ended, and leaves alone a host that it does not know', async () => {
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
    await eventually('the VM runs again', async () => {
      const seen = await broker.hypervisor.list();
      const [now] = await broker.store.records.livingHosts();
      const own = seen.find(({ hostId }) => hostId === host.id);
      return seen.length === 2 && own?.state === 'running' && now?.engine !== undefined;
    });
    // Operations that Berth began are not reported to the platform.
    expect(await last(id)).toMatchObject({ state: 'succeeded' });
    expect((await broker.ask('get', instance(id))).status).toBe(200);
  });

  it('reconciliation: restarts a running host without an address, as a failed update can leave it', async () => {
    broker.startWorker();
    const id = randomUUID();
    await begin(id);
    await ended(id);
    const [host] = await broker.store.records.livingHosts();
    if (host === undefined) throw new Error('there is no host');
    await broker.store.records.setHostUnreachable(host.id);
    await broker.reconcile();
    await eventually('it has an address again', async () => {
      const [now] = await broker.store.records.livingHosts();
      return now?.engine !== undefined;
    });
    const count = async () => (await broker.database('operations').where({ kind: 'restart' })).length;
    expect(await count()).toBe(1);
    await broker.reconcile();
    expect(await count()).toBe(1);
  });

  // Fails with a unique violation without the lock.
  it('reconciliation: begins no restart if a request begins an operation first', async () => {
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

  it('reconciliation: does not restart a host whose delete failed; the delete is retried until nothing is left', async () => {
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
    // The VM was stopped half-way.
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

it('operation: a second one on the same instance is refused with ConcurrencyError', async () => {
  await begin('i');
  const { id = '' } = (await broker.store.records.instance(broker.platformId, 'i')) ?? {};
  const beginning = broker.store.transaction((records) => beginOperation(records, 'restart', id));
  await expect(beginning).rejects.toMatchObject({ refusal: { status: 422, code: 'ConcurrencyError' } });
});

it('store: a transaction that Postgres aborts because of a deadlock runs again', async () => {
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
  // Postgres aborts at least one of them, which then holds its first lock a second time.
  expect(holding).toBeGreaterThanOrEqual(3);
  expect(await database('instances')).toHaveLength(2);
});
