import { randomUUID } from 'node:crypto';
import supertest from 'supertest';
import { afterAll, afterEach, beforeAll, expect, inject, it } from 'vitest';
import type { Drift } from '../../src/core/hypervisor/integrity.ts';
import { noRegistries } from '../../src/core/hypervisor/host-spec.ts';
import { type Checks } from '../../src/controllers/integrity.ts';
import type { PoolController } from '../../src/controllers/pool.ts';
import { createHostChecks } from '../../src/core/host-checks.ts';
import { createCheckRequests } from '../../src/postgres/host-checks.ts';
import {
  catalogFile,
  instance,
  makeTestBroker,
  operator,
  provisionBody,
  type TestBroker,
} from '../support/broker.ts';
import { eventually } from '../support/eventually.ts';
import { createRecordingLogger } from '../support/logger.ts';

// Seen to fail where a quarantine is not recorded, or does not cut off, and where what a check found is not recorded;
// where a release leaves the mark or the record of a quarantine, and where it counts for a later one as well.
const hour = 3_600_000;
const altered: Drift[] = [{ part: 'firewall', detail: 'missing: rule drop' }];
const log = createRecordingLogger();
/** Its pool is filled by the tests that want one. */
const [offering] = catalogFile.offerings;
const withPool = {
  offerings: [{ ...offering, plans: offering?.plans.map((plan) => ({ ...plan, pool: 2 })) }],
};
let broker: TestBroker;
let found = new Map<string, Drift[]>();
let onQuarantine = (): Promise<void> => Promise.resolve();
let onVerify: (hostId: string) => void = () => undefined;
let checks: Checks;
/** One for all: it holds a lease. */
let keeper: PoolController;

beforeAll(async () => {
  broker = await makeTestBroker(inject('postgres'), {
    logger: log.logger,
    faults: {
      before: (act) => (act === 'quarantine' ? onQuarantine() : undefined),
      drift: (hostId) => {
        onVerify(hostId);
        return found.get(hostId) ?? [];
      },
    },
    catalog: withPool,
  });
  await broker.hypervisor.makeTemplate(
    { planName: 'small', shape: { vcpus: 1, memoryMib: 768, diskGib: 4 } },
    () => undefined,
    new AbortController().signal,
  );
  broker.startWorker();
  keeper = broker.makePoolController();
});
afterEach(() => checks.stop());
afterAll(() => broker.stop());

const makeHost = async (): Promise<string> => {
  const id = randomUUID();
  expect(
    (await broker.ask('put', `${instance(id)}?accepts_incomplete=true`).send(provisionBody)).status,
  ).toBe(201);
  const row: { id: string } | undefined = await broker
    .database('hosts')
    .join('instances', 'instances.id', 'hosts.instance_id')
    .where({ osb_id: id })
    .first('hosts.id');
  return row?.id ?? '';
};
const verify = (host?: string) =>
  supertest(broker.mgmt)
    .post(host === undefined ? '/mgmt/verify' : `/mgmt/verify/${host}`)
    .auth(operator.username, operator.password);
const look = (route: string) => supertest(broker.mgmt).get(route).auth(operator.username, operator.password);
const integrityOf = async (host: string) =>
  ((await look('/mgmt/hosts')).body as { hosts: { host: string; integrity?: string }[] }).hosts.find(
    (one) => one.host === host,
  )?.integrity;

it('checks on request, and names what was altered in the answer, the list, the metrics and the log', async () => {
  checks = broker.startChecks('report', hour);
  const [sound, other] = [await makeHost(), await makeHost()];
  expect(await integrityOf(sound)).toBeUndefined();
  found = new Map([[other, altered]]);
  const answer = (await verify()).body as { hosts: { host: string; drift: Drift[] }[] };
  expect(answer.hosts.find(({ host }) => host === sound)).toMatchObject({
    drift: [],
    quarantined: false,
  });
  expect(answer.hosts.find(({ host }) => host === other)).toMatchObject({
    drift: altered,
    quarantined: false,
  });
  expect([await integrityOf(sound), await integrityOf(other)]).toEqual(['as made', 'altered']);
  expect((await look('/mgmt/metrics')).text).toContain('berth_hosts_checked{result="altered"} 1');
  expect(log.lines.filter((line) => line['event'] === 'host.altered' && line['host'] === other)).toHaveLength(
    1,
  );
  // One event for one alteration, however often it is found.
  await verify(other.slice(0, 8));
  expect(log.lines.filter((line) => line['event'] === 'host.altered')).toHaveLength(1);
  found = new Map();
  expect((await verify(other)).body).toMatchObject({ hosts: [{ drift: [] }] });
  expect(await integrityOf(other)).toBe('as made');
});

it('checks every host now and then without being asked', async () => {
  const host = await makeHost();
  checks = broker.startChecks('report', 20);
  await eventually('the host was checked', async () => (await integrityOf(host)) === 'as made');
});

// Seen to fail where a failure is not recorded (the answer was a 503 after a minute), where it is kept after a check that
// succeeded, and where it covers an alteration that is known.
it('says which host could not be checked, and why, instead of "as made", until it can be again', async () => {
  checks = broker.startChecks('report', hour);
  const [host, other] = [await makeHost(), await makeHost()];
  await verify();
  const last = (await verify(host)).body as { hosts: { checkedAt: string }[] };
  expect([await integrityOf(host), await integrityOf(other)]).toEqual(['as made', 'as made']);

  onVerify = (hostId) => {
    if (hostId === host) throw new Error('no machine of it runs');
  };
  const answer = (await verify()).body as { hosts: { host: string; failure?: object }[] };
  expect(answer.hosts.find((one) => one.host === host)).toMatchObject({
    drift: [],
    checkedAt: last.hosts[0]?.checkedAt,
    failure: { at: expect.any(String) as string, reason: 'no machine of it runs' },
  });
  // The others are checked all the same.
  expect(answer.hosts.find((one) => one.host === other)?.failure).toBeUndefined();
  expect([await integrityOf(host), await integrityOf(other)]).toEqual(['check failed', 'as made']);
  expect((await look('/mgmt/metrics')).text).toContain('berth_hosts_checked{result="check failed"} 1');

  onVerify = () => undefined;
  expect((await verify(host)).body).toMatchObject({ hosts: [{ drift: [] }] });
  expect(await integrityOf(host)).toBe('as made');

  // What is known to be altered stays so.
  found = new Map([[host, altered]]);
  await verify(host);
  onVerify = () => {
    throw new Error('no machine of it runs');
  };
  expect((await verify(host)).body).toMatchObject({ hosts: [{ drift: altered, failure: {} }] });
  expect(await integrityOf(host)).toBe('altered');
  onVerify = () => undefined;
  found = new Map();
});

// Seen to fail where only hosts of instances are checked, and where one is left in the pool.
it.each(['report', 'quarantine'] as const)(
  'checks hosts of the pool; an altered one is handed to nobody, and destroyed, whatever the policy: %s',
  async (policy) => {
    checks = broker.startChecks(policy, hour);
    await keeper.runOnce();
    const pooled = async () => (await broker.store.records.pooledHosts()).map(({ id }) => id);
    const [bad = '', good = ''] = await pooled();
    const sound = (await verify()).body as { hosts: { host: string; instance?: string }[] };
    expect(sound.hosts.find(({ host }) => host === bad)).toMatchObject({ drift: [] });
    expect(sound.hosts.find(({ host }) => host === bad)).not.toHaveProperty('instance');
    expect(await integrityOf(bad)).toBe('as made');

    found = new Map([[bad, altered]]);
    expect((await verify(bad)).body).toMatchObject({ hosts: [{ drift: altered, quarantined: false }] });
    expect(log.lines).toContainEqual(expect.objectContaining({ event: 'host.altered', host: bad }));
    // It is the oldest, which a create would have taken.
    expect([await makeHost(), await makeHost()]).not.toContain(bad);
    await keeper.runOnce();
    expect((await broker.hypervisor.list()).map(({ hostId }) => hostId)).not.toContain(bad);
    expect(await pooled()).not.toContain(bad);
    expect(await integrityOf(good)).toBe('as made');
    found = new Map();
  },
);

const release = (host: string) =>
  supertest(broker.mgmt).delete(`/mgmt/hosts/${host}/quarantine`).auth(operator.username, operator.password);

const connect = (hostId: string) =>
  broker.hypervisor.connect({
    hostId,
    slot: 1,
    planName: 'small',
    shape: { vcpus: 1, memoryMib: 768, diskGib: 4 },
    publishedPorts: { first: 20_000, count: 0 },
    egress: { kind: 'none' },
    registries: noRegistries,
  });

it('cuts an altered host off where that is the policy, until an operator has released it', async () => {
  checks = broker.startChecks('quarantine', hour);
  const host = await makeHost();
  found = new Map([[host, altered]]);
  expect((await verify(host)).body).toMatchObject({ hosts: [{ drift: altered, quarantined: true }] });
  expect(await integrityOf(host)).toBe('quarantined');
  expect(await broker.database('hosts').where({ id: host }).first()).toMatchObject({ engine_host: null });
  await expect(connect(host)).rejects.toThrow(/quarantine/);
  // Reconciliation does not bring it back, not even when its machine ends.
  await broker.hypervisor.stop(host);
  await broker.reconcile();
  expect(await broker.database('operations').where({ kind: 'restart' })).toEqual([]);

  found = new Map();
  expect((await release(host)).status).toBe(202);
  await eventually('its quarantine has ended', async () => (await integrityOf(host)) !== 'quarantined');
  await broker.reconcile();
  const address = () =>
    broker.database('hosts').where({ id: host }).whereNotNull('engine_host').first<unknown>();
  await eventually('it is brought back', async () => (await address()) !== undefined);
  await eventually('nothing is under way', async () => {
    const operations = await broker.database('operations').where({ state: 'in progress' });
    return operations.length === 0;
  });
  expect((await verify(host)).body).toMatchObject({ hosts: [{ drift: [], quarantined: false }] });
  const audit = (await look('/mgmt/audit')).body as { audit: object[] };
  expect(audit.audit).toContainEqual(
    expect.objectContaining({
      actor: 'operator',
      action: `DELETE /mgmt/hosts/${host}/quarantine`,
      outcome: 'accepted',
    }),
  );

  // An earlier release is none of a later quarantine.
  found = new Map([[host, altered]]);
  expect((await verify(host)).body).toMatchObject({ hosts: [{ quarantined: true }] });
  found = new Map();
  await verify();
  expect(await integrityOf(host)).toBe('quarantined');
});

// Seen to fail where the next checks do not finish the quarantine, and where an answer does not wait for its end.
it('finishes a quarantine that the worker before it has only recorded, and answers once the host is cut off', async () => {
  checks = broker.startChecks('quarantine', hour);
  const host = await makeHost();
  found = new Map([[host, altered]]);
  onQuarantine = () => Promise.reject(new Error('out of order'));
  let looks = 0;
  broker.database.on('query', ({ sql }: { sql: string }) => {
    if (sql.includes('AS awaited')) looks += 1;
  });
  let answered = false;
  const answer = createHostChecks(createCheckRequests(broker.database))
    .now(host)
    .finally(() => (answered = true));
  await eventually('it is recorded', async () => (await integrityOf(host)) === 'quarantined');
  await checks.stop();
  const looksBefore = looks;
  await eventually('its reader has looked again', () => answered || looks > looksBefore + 1);
  expect(answered).toBe(false);
  await expect(connect(host)).resolves.toBeDefined();

  onQuarantine = () => Promise.resolve();
  checks = broker.startChecks('report', hour);
  expect(await answer).toMatchObject([{ drift: altered, quarantined: true }]);
  await expect(connect(host)).rejects.toThrow(/quarantine/);
});

it('releases only a host in quarantine', async () => {
  checks = broker.startChecks('report', hour);
  expect((await release(await makeHost())).status).toBe(404);
  expect((await release(randomUUID())).status).toBe(404);
  expect((await release('nonsense')).status).toBe(404);
});

it('says that there is no such host, and what a host id is', async () => {
  checks = broker.startChecks('report', hour);
  expect((await verify('00000000')).status).toBe(404);
  expect((await verify('../x')).status).toBe(404);
  const wrong = await verify('nonsense');
  expect([wrong.status, (wrong.body as { description: string }).description]).toEqual([
    400,
    expect.stringContaining('HOST'),
  ]);
});
