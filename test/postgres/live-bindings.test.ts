import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, inject, it, onTestFinished } from 'vitest';
import type { LiveBindingsSource } from '../../src/core/ports/live-bindings.ts';
import { channels } from '../../src/postgres/channels.ts';
import { openDatabase } from '../../src/postgres/database.ts';
import { createGatewayRecords } from '../../src/postgres/gateways.ts';
import { startListener } from '../../src/postgres/listener.ts';
import { createLiveBindingsSource } from '../../src/postgres/live-bindings.ts';
import { createRevocations } from '../../src/postgres/revocations.ts';
import {
  binding,
  bindBody,
  instance,
  makeTestBroker,
  noJournal,
  provisionBody,
  type TestBroker,
} from '../support/broker.ts';
import { eventually } from '../support/eventually.ts';
import { createBreakableProxy } from './support/breakable-proxy.ts';

let broker: TestBroker;

beforeAll(async () => {
  broker = await makeTestBroker(inject('postgres'));
  broker.startWorker();
  expect(
    (await broker.ask('put', `${instance('i')}?accepts_incomplete=true`).send(provisionBody)).status,
  ).toBe(201);
});

afterAll(async () => {
  await broker.stop();
});

/** Makes a binding of the instance. */
async function bind(osbId: string): Promise<{ id: string; serial: string }> {
  expect((await broker.ask('put', binding('i', osbId)).send(bindBody)).status).toBe(201);
  const row = await broker
    .database<{ id: string; serial: string; osb_id: string }>('bindings')
    .where({ osb_id: osbId })
    .first('id', 'serial');
  if (row === undefined) throw new Error('the binding has no row');
  return row;
}

async function open(
  connectionString: string,
  changed: (bindingId: string) => void = () => undefined,
): Promise<LiveBindingsSource> {
  const source = createLiveBindingsSource({ connectionString, connections: () => 3 });
  onTestFinished(() => source.close());
  await source.open({ changed, lost: () => undefined });
  return source;
}

it('live bindings: read by id and by serial, without revoked ones', async () => {
  const [one, two, revoked] = [await bind('one'), await bind('two'), await bind('revoked')];
  await broker
    .database('bindings')
    .where({ id: revoked.id })
    .update({ state: 'revoked', revoked_at: new Date(), sealed_credentials: null });
  const source = await open(broker.urls.gateway);
  const byId = await source.read([one.id, two.id, revoked.id, randomUUID()]);
  expect(byId.map(({ bindingId }) => bindingId).sort()).toEqual([one.id, two.id].sort());
  const bySerial = await source.readBySerial([two.serial, revoked.serial, 'abc']);
  expect(bySerial).toEqual([byId.find(({ bindingId }) => bindingId === two.id)]);
  expect(bySerial[0]?.engine?.host).toBe('127.0.0.1');
});

it('live bindings: several are acknowledged at once, and a repetition changes nothing', async () => {
  const bindings = [await bind('three'), await bind('four')].map(({ id }) => id);
  const source = await open(broker.urls.gateway);
  await source.takeLease(5_000);
  await source.acknowledge(bindings);
  await source.acknowledge(bindings);
  const rows = await broker
    .database<{ binding_id: string }>('revocation_acknowledgements')
    .whereIn('binding_id', bindings);
  expect(rows.map(({ binding_id }) => binding_id).sort()).toEqual([...bindings].sort());
});

// Fails without the repeated notification: the unbind timed out after 20 s.
it('revocations: a gateway that registers after the revocation does not delay the unbind', async () => {
  const { id } = await bind('five');
  await broker.store.records.revokeBinding(id);
  const source = await open(broker.urls.gateway, (bindingId) => void source.acknowledge([bindingId]));
  await source.takeLease(60_000);
  const listener = await startListener({
    connectionString: broker.urls.api,
    listenTo: [channels.acknowledgements],
    onLost: () => undefined,
  });
  onTestFinished(() => listener.stop());
  const api = openDatabase(broker.urls.api, { maxConnections: 1 });
  onTestFinished(() => api.destroy());
  await createRevocations(api, listener, noJournal).settled([id]);
  expect(await broker.database('bindings').where({ id }).whereNull('settled_at')).toEqual([]);
  await source.releaseLease();
});

it('gateway records: acknowledgements that nothing waits for any more are deleted', async () => {
  const { id } = await bind('six');
  const [late] = await broker.database<{ id: string; osb_id: string }>('bindings').where({ osb_id: 'five' });
  const source = await open(broker.urls.gateway);
  await source.takeLease(5_000);
  await source.acknowledge([id, late?.id ?? '']);
  const api = openDatabase(broker.urls.api, { maxConnections: 1 });
  onTestFinished(() => api.destroy());
  await createGatewayRecords(api).deleteLateAcknowledgements();
  const left = await broker
    .database<{ binding_id: string }>('revocation_acknowledgements')
    .select('binding_id');
  expect(left.map(({ binding_id }) => binding_id)).toContain(id);
  expect(left.map(({ binding_id }) => binding_id)).not.toContain(late?.id);
  await source.releaseLease();
});

it('live bindings: close() drops a connection whose server does not answer any more', async () => {
  const proxy = await createBreakableProxy(broker.urls.gateway);
  onTestFinished(() => {
    proxy.close();
  });
  const source = await open(proxy.url);
  await source.takeLease(5_000);
  expect(proxy.clients.size).toBe(1);
  proxy.silence();
  await source.close();
  // Only a closed socket answers further data with a reset. N: a notice that never ends.
  await eventually('the connection is gone', () => {
    for (const socket of proxy.clients) socket.write('N');
    return proxy.clients.size === 0;
  });
});
