import { randomUUID } from 'node:crypto';
import type { Knex } from 'knex';
import { afterAll, beforeAll, beforeEach, expect, inject, it, onTestFinished } from 'vitest';
import { RefusedError } from '../../src/core/errors.ts';
import type { HistoryRecords, RevocationJournal } from '../../src/core/ports/database-history.ts';
import { createHistoryWatch } from '../../src/history/watch.ts';
import { bestEffort } from '../../src/history/revocation-journal.ts';
import { createAuditTrail } from '../../src/postgres/audit.ts';
import { channels } from '../../src/postgres/channels.ts';
import { openDatabase } from '../../src/postgres/database.ts';
import { createHistoryRecords, requireConfirmedHistory } from '../../src/postgres/database-history.ts';
import { startListener } from '../../src/postgres/listener.ts';
import { createRevocations } from '../../src/postgres/revocations.ts';
import {
  bindBody,
  binding,
  instance,
  makeTestBroker,
  provisionBody,
  type TestBroker,
} from '../support/broker.ts';
import { silentLogger } from '../support/logger.ts';

let broker: TestBroker;
let worker: Knex;
let records: HistoryRecords;

beforeAll(async () => {
  broker = await makeTestBroker(inject('postgres'));
  broker.startWorker();
  await broker.ask('put', `${instance('one')}?accepts_incomplete=true`).send(provisionBody);
  worker = openDatabase(broker.urls.worker, { maxConnections: 2 });
  records = createHistoryRecords(worker);
});
afterAll(async () => {
  await worker.destroy();
  await broker.stop();
});
beforeEach(async () => {
  await broker.database('installation').delete();
  await broker.database('installation').insert({ id: randomUUID(), site: 'abcd' });
});

/** Whether a new connection may be used. */
async function isUsable(seen: number): Promise<boolean> {
  const check = requireConfirmedHistory({ read: () => Promise.resolve(seen) });
  const database = openDatabase(broker.urls.gateway, { maxConnections: 1, check });
  try {
    await database.raw('SELECT');
    return true;
  } catch (error) {
    if (error instanceof RefusedError && error.refusal.status === 503) return false;
    throw error;
  } finally {
    await database.destroy();
  }
}

it('database history: a new database is confirmed, and its mark advances', async () => {
  const first = await records.advance(0);
  expect(first?.mark).toBe(1);
  expect(await records.advance(1)).toEqual({ mark: 2, serverStart: first?.serverStart });
  expect(await isUsable(2)).toBe(true);
  expect(await records.confirm(2)).toBeUndefined();
});

it.each([
  ['has a lower mark than the installation has seen', 10, undefined],
  ['has another history than the confirmed one', 0, { history: 'server/timeline/1' }],
])('database history: a database that %s is not used until it is confirmed', async (_, seen, change) => {
  if (change !== undefined) await broker.database('installation').update(change);
  expect(await records.advance(seen)).toBeUndefined();
  expect(await isUsable(seen)).toBe(false);
  const mark = (await records.confirm(seen)) ?? 0;
  expect(mark).toBeGreaterThan(seen);
  expect(await isUsable(mark)).toBe(true);
  expect(await records.advance(mark)).toBeDefined();
});

// Fails if the history is confirmed first, or although something failed.
it('database history: it is confirmed only after the hosts were compared', async () => {
  await broker.database('installation').update({ history: 'server/timeline/1' });
  let fails = true;
  let highest = 5;
  const watch = createHistoryWatch({
    records,
    highest: {
      read: () => Promise.resolve(highest),
      write: (mark) => Promise.resolve(void (highest = mark)),
    },
    folders: [],
    async compareHosts() {
      expect(await isUsable(highest)).toBe(false);
      if (fails) throw new Error('the hypervisor does not answer');
      return 2;
    },
    audit: createAuditTrail(worker),
    logger: silentLogger,
  });
  await expect(watch.runOnce()).rejects.toThrow('does not answer');
  expect(await isUsable(highest)).toBe(false);
  fails = false;
  await watch.runOnce();
  expect(await isUsable(highest)).toBe(true);
  expect(await broker.database('audit').where({ action: 'database.confirm' }).select('detail')).toEqual([
    { detail: { revoked: 0, differing: 2 } },
  ]);
});

const bind = async (id: string) => {
  await broker.ask('put', binding('one', id)).send(bindBody);
  const row: { id: string } | undefined = await broker.database('bindings').where({ osb_id: id }).first('id');
  return row?.id ?? '';
};

it('database history: a binding that is revoked again has its row in the audit trail; one that was revoked is left alone', async () => {
  const [live, revoked] = [await bind('live'), await bind('revoked')];
  await broker.store.records.revokeBinding(revoked);
  const listener = await startListener({
    connectionString: broker.urls.worker,
    listenTo: [channels.bindings],
    onLost: () => undefined,
  });
  onTestFinished(() => listener.stop());
  const notified = new Promise((resolve) => listener.on(channels.bindings, resolve));
  expect(await records.revokeAgain([live, revoked, randomUUID()])).toEqual([live]);
  expect(await notified).toBe(live);
  const rows: object[] = await broker
    .database('audit')
    .where({ action: 'binding.revoke_again' })
    .select('instance_id', 'binding_id');
  expect(rows).toEqual([{ instance_id: 'one', binding_id: 'live' }]);
});

// Fails if the revocation counts as settled before it is in the journal: the retry would not write it.
it('revocations: one that the journal does not get is answered 503, and the retry writes it', async () => {
  const id = await bind('journal');
  await broker.store.records.revokeBinding(id);
  const listener = await startListener({
    connectionString: broker.urls.api,
    listenTo: [channels.acknowledgements],
    onLost: () => undefined,
  });
  onTestFinished(() => listener.stop());
  const written: string[] = [];
  let isFull = true;
  const journal: RevocationJournal = {
    append(revocations) {
      if (isFull) return Promise.reject(new Error('ENOSPC'));
      written.push(...revocations.map(({ bindingId }) => bindingId));
      return Promise.resolve();
    },
  };
  const isSettled = async () =>
    (await broker.database('bindings').where({ id }).whereNotNull('settled_at')).length === 1;

  const revocations = createRevocations(broker.database, listener, journal);
  await expect(revocations.settled([id])).rejects.toMatchObject({ refusal: { status: 503 } });
  expect(await isSettled()).toBe(false);
  // A delete does not wait for room on the disk: it makes room.
  await createRevocations(broker.database, listener, bestEffort(journal)).settled([id]);
  expect(await isSettled()).toBe(true);
  isFull = false;
  await revocations.settled([id]);
  expect(written).toEqual([id]);
});
