import { randomUUID } from 'node:crypto';
import type { Knex } from 'knex';
import { afterEach, beforeEach, describe, expect, inject, it } from 'vitest';
import { isSealedWith } from '../../src/secrets/envelope.ts';
import { createKeyRing, type KeyRing } from '../../src/secrets/key-ring.ts';
import { createMasterKeyText, masterKeyFromText } from '../../src/secrets/master-key.ts';
import { startKeyRotation } from '../../src/secrets/key-rotation.ts';
import { channels } from '../../src/postgres/channels.ts';
import { openDatabase } from '../../src/postgres/database.ts';
import { startListener } from '../../src/postgres/listener.ts';
import { createMasterKeyEvents, createMasterKeyStore } from '../../src/postgres/master-keys.ts';
import { createPresence, createPresences } from '../../src/postgres/presence.ts';
import { createSealedData, sealedColumns } from '../../src/postgres/sealed-columns.ts';
import {
  bindBody,
  binding,
  instance,
  makeTestBroker,
  provisionBody,
  type TestBroker,
} from '../support/broker.ts';
import { eventually } from '../support/eventually.ts';
import { silentLogger } from '../support/logger.ts';

let broker: TestBroker;
let database: Knex;
/** The master key file that all apis read. */
let file: string;
const cleanUp: (() => Promise<void>)[] = [];
const newText = createMasterKeyText();
const newKey = masterKeyFromText(newText);
const newId = newKey.id.toString('hex');
const osbId = randomUUID();
let oldId: string;

beforeEach(async () => {
  broker = await makeTestBroker(inject('postgres'));
  cleanUp.push(() => broker.stop());
  broker.startWorker();
  database = openDatabase(broker.urls.api);
  cleanUp.push(() => database.destroy());
  file = `${broker.masterKey}\n`;
  oldId = masterKeyFromText(broker.masterKey).id.toString('hex');
  await createMasterKeyStore(database).recordFirst(oldId);
  await broker
    .ask('put', `${instance(osbId)}?accepts_incomplete=true`)
    .send(provisionBody)
    .expect(201);
});
afterEach(async () => {
  for (const act of cleanUp.splice(0).reverse()) await act();
});

/** The rotation as one api runs it. */
async function api(ring: KeyRing, settleMs = 0, readText = () => Promise.resolve(file)) {
  const listener = await startListener({
    connectionString: broker.urls.api,
    listenTo: [channels.masterKeys, channels.masterKeyFile, channels.presence],
    onLost: () => undefined,
  });
  const rotation = startKeyRotation({
    ...{ ring, readText, settleMs },
    store: createMasterKeyStore(database),
    events: createMasterKeyEvents(database, listener),
    sealedData: createSealedData(database),
    presence: createPresence(database, 'api'),
    presences: createPresences(database, listener),
    logger: silentLogger,
  });
  const stop = async () => {
    await rotation.stop();
    await listener.stop();
  };
  cleanUp.push(stop);
  await eventually('it is known what it holds', async () => (await presences()) > 0);
  return { ...rotation, stop };
}
const presences = async () => (await database('presences')).length;
const bind = (id: string) => broker.ask('put', binding(osbId, id)).send(bindBody);
const sealed = async () =>
  (await broker.database<{ sealed_credentials: Buffer }>('bindings')).map((row) => row.sealed_credentials);
const states = async () =>
  Object.fromEntries(
    (await createMasterKeyStore(database).list()).map(({ id, state }) => [id, state]),
  ) as Record<string, string>;

it('sealedColumns: lists every sealed column of the schema', async () => {
  const { rows } = await broker.database.raw<{ rows: { place: string }[] }>(
    `SELECT table_name || '.' || column_name AS place FROM information_schema.columns
     WHERE table_schema = current_schema() AND data_type = 'bytea' AND column_name LIKE 'sealed%' ORDER BY 1`,
  );
  expect(rows.map(({ place }) => place)).toEqual(
    sealedColumns.map(({ table, column }) => `${table}.${column}`).sort(),
  );
});

describe('master key rotation', () => {
  it('master key rotation: rewraps everything while binds continue, then the former key is not needed any more', async () => {
    // Longer than any request of this test takes.
    const first = await api(broker.vault, 2_000);
    for (let index = 0; index < 5; index += 1) await bind(`before-${index}`).expect(201);
    file += newText;
    let binding_ = 0;
    const enough = new AbortController();
    const goingOn = (async () => {
      while (!enough.signal.aborted) {
        await bind(`during-${(binding_ += 1)}`).expect(201);
        await broker.ask('get', binding(osbId, 'before-0')).expect(200);
      }
    })();
    await eventually('binds continue', () => binding_ > 2);
    expect(await first.rotate()).toHaveLength(2);
    const begun = binding_;
    await eventually('the former key is retired', async () => (await states())[oldId] === 'retired', {
      deadlineMs: 25_000,
    });
    await eventually('binds continue', () => binding_ > begun + 2);
    enough.abort();
    await goingOn;
    expect(await states()).toEqual({ [oldId]: 'retired', [newId]: 'current' });
    const all = await sealed();
    expect(all.length).toBeGreaterThan(7);
    expect(all.every((one) => isSealedWith(newKey, one))).toBe(true);
    // With the new key alone, as after `berth keys prune` and a restart.
    const alone = createKeyRing([newKey]);
    const rows = await broker.database<{ id: string; sealed_credentials: Buffer }>('bindings');
    for (const row of rows) {
      const opened = alone.open(row.sealed_credentials, `bindings/${row.id}/credentials`).toString();
      expect(opened).toContain('PRIVATE KEY');
    }
    const audited = await broker.database<{ action: string }>('audit').where('action', 'like', 'master-key%');
    expect(audited.map(({ action }) => action)).toEqual([
      'master-key-current',
      'master-key-retiring',
      'master-key-current',
      'master-key-retired',
    ]);
  });

  it('master key rotation: is finished by another api if its api is killed', async () => {
    const first = await api(broker.vault, 3_600_000);
    for (let index = 0; index < 4; index += 1) await bind(`b-${index}`).expect(201);
    file += newText;
    await first.rotate();
    const areAll = async () => (await sealed()).every((one) => isSealedWith(newKey, one));
    await eventually('everything is rewrapped', areAll);
    await first.stop();
    // As a kill leaves it: some are rewrapped, and some are not.
    const [one, two] = await broker
      .database<{ id: string; sealed_credentials: Buffer }>('bindings')
      .orderBy('id');
    const former = createKeyRing([masterKeyFromText(broker.masterKey), newKey]);
    for (const row of [one, two]) {
      if (row === undefined) throw new Error('there are too few bindings');
      const place = `bindings/${row.id}/credentials`;
      const again = former.seal(former.open(row.sealed_credentials, place), place);
      await broker.database('bindings').where({ id: row.id }).update({ sealed_credentials: again });
    }
    expect((await sealed()).filter((one) => isSealedWith(newKey, one))).toHaveLength(2);
    const ring = createKeyRing([masterKeyFromText(broker.masterKey), newKey]);
    await api(ring);
    await eventually('the former key is retired', async () => (await states())[oldId] === 'retired');
    expect((await sealed()).every((one) => isSealedWith(newKey, one))).toBe(true);
  });

  it('master key rotation: rewraps the other rows if one is damaged, retains the former key and reports it', async () => {
    const first = await api(broker.vault);
    for (let index = 0; index < 3; index += 1) await bind(`b-${index}`).expect(201);
    const ids = await broker.database('bindings').orderBy('id').pluck<string[]>('id');
    const [damaged, whole] = [ids[0] ?? '', ids.slice(1)];
    // After the header, which names the master key.
    const flipped = broker.database.raw(
      'set_byte(sealed_credentials, 40, 255 - get_byte(sealed_credentials, 40))',
    );
    await broker.database('bindings').where({ id: damaged }).update({ sealed_credentials: flipped });
    file += newText;
    await first.rotate();
    await eventually('the others are rewrapped', async () => {
      const rows = await broker
        .database('bindings')
        .whereIn('id', whole)
        .pluck<Buffer[]>('sealed_credentials');
      return rows.every((one) => isSealedWith(newKey, one));
    });
    const former = async () => (await first.list()).find(({ id }) => id === oldId);
    await eventually('it is told', async () => (await former())?.unreadable === 1);
    expect((await former())?.state).toBe('retiring');
    await broker
      .database('bindings')
      .update({ state: 'revoked', sealed_credentials: null, revoked_at: new Date() });
    await eventually('nothing needs it any more', async () => (await former())?.state === 'retired');
  });

  it('master key rotation: waits for requests that still seal with the former key', async () => {
    const first = await api(broker.vault, 3_600_000);
    file += newText;
    await first.rotate();
    await bind('later').expect(201);
    await eventually('everything is rewrapped', async () =>
      (await sealed()).every((one) => isSealedWith(newKey, one)),
    );
    expect((await states())[oldId]).toBe('retiring');
    await expect(first.rotate()).rejects.toThrow('in progress');
  });

  it('master key rotation: is refused without changes while another api lacks the key', async () => {
    const first = await api(broker.vault);
    const behind = createKeyRing([masterKeyFromText(broker.masterKey)]);
    const second = await api(behind, 0, () => Promise.resolve(broker.masterKey));
    await eventually('both are seen', async () => (await presences()) === 2);
    file += newText;
    await expect(first.rotate()).rejects.toThrow(/Not every api has the new master key [0-9a-f]{16}/);
    expect(await states()).toEqual({ [oldId]: 'current' });
    await bind('still').expect(201);
    expect((await sealed()).every((one) => !isSealedWith(newKey, one))).toBe(true);
    // An api that has stopped is not waited for.
    await second.stop();
    await first.rotate();
    expect((await states())[newId]).toBe('current');
  });

  it('master key rotation: every api seals with the new key', async () => {
    const first = await api(broker.vault);
    const other = createKeyRing([masterKeyFromText(broker.masterKey)]);
    await api(other);
    await eventually('both are seen', async () => (await presences()) === 2);
    file += newText;
    await first.rotate();
    await eventually('the other seals with the new key', () =>
      isSealedWith(newKey, other.seal(Buffer.from('x'), 'row')),
    );
  });

  it('master key rotation: is refused if the file has no new key, two new keys, or no key', async () => {
    const first = await api(broker.vault);
    await expect(first.rotate()).rejects.toThrow('contains no new key');
    file += `${newText}\n${createMasterKeyText()}`;
    await expect(first.rotate()).rejects.toThrow('more than one new key');
    file = 'nonsense';
    await expect(first.rotate()).rejects.toThrow('32 bytes');
    expect(await states()).toEqual({ [oldId]: 'current' });
  });
});

it('rewrapAll: a binding that is revoked during the rewrap stays revoked', async () => {
  await bind('b').expect(201);
  broker.vault.add([newKey]);
  broker.vault.sealWith(newId);
  const revoking = await broker.database.transaction();
  await revoking('bindings').update({ state: 'revoked', sealed_credentials: null, revoked_at: new Date() });
  const wrapping = createSealedData(database).rewrapAll(
    (value, row) => broker.vault.rewrap(value, row),
    () => false,
  );
  // The rewrap has read the old row and waits to write it.
  await eventually('the two have met', async () => {
    const { rows } = await broker.database.raw<{ rows: unknown[] }>(
      `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
    );
    return rows.length > 0;
  });
  await revoking.commit();
  expect(await wrapping).toEqual({ replaced: 0, damaged: [] });
  expect(await sealed()).toEqual([null]);
});

it('presence: a process that has stopped announcing itself does not count', async () => {
  const listener = await startListener({
    connectionString: broker.urls.api,
    listenTo: [channels.presence],
    onLost: () => undefined,
  });
  cleanUp.push(() => listener.stop());
  const others = createPresences(database, listener);
  const presence = createPresence(database, 'api');
  await presence.announce(['a']);
  expect(await others.countWithout('api', 'b')).toBe(1);
  expect(await others.countWithout('api', 'a')).toBe(0);
  expect(await others.countWithout('gateway', 'b')).toBe(0);
  await broker.database.raw(`UPDATE presences SET seen_at = now() - interval '1 minute'`);
  expect(await others.countWithout('api', 'b')).toBe(0);
});
