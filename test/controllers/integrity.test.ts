import { randomUUID } from 'node:crypto';
import supertest from 'supertest';
import { afterAll, afterEach, beforeAll, expect, inject, it } from 'vitest';
import type { Drift } from '../../src/core/hypervisor/integrity.ts';
import { toHostSpec } from '../../src/core/model/host-spec.ts';
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

// Fails if a quarantine is not recorded or does not disconnect the host; if the result of a check is not recorded; if a
// release leaves the mark or the record of a quarantine, or also ends a later one.
const hour = 3_600_000;
const drift: Drift[] = [{ part: 'firewall', detail: 'missing: rule drop' }];
const log = createRecordingLogger();
/** Tests that need parked hosts run the pool controller. */
const [offering] = catalogFile.offerings;
const withPool = {
  offerings: [{ ...offering, plans: offering?.plans.map((plan) => ({ ...plan, pool: 2 })) }],
};
let broker: TestBroker;
let found = new Map<string, Drift[]>();
let onQuarantine = (): Promise<void> => Promise.resolve();
let onVerify: (hostId: string) => void = () => undefined;
let stopChecks: () => Promise<void>;
/** One for all tests: it is the leader. */
let pool: PoolController;

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
  await broker.hypervisor.makeTemplate(() => undefined, new AbortController().signal);
  broker.startWorker();
  pool = broker.makePoolController();
});
afterEach(() => stopChecks());
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

it('integrity check: on request, and reports drift in the answer, the list, the metrics and the log', async () => {
  stopChecks = broker.startIntegrityChecks('report', hour);
  const [sound, other] = [await makeHost(), await makeHost()];
  expect(await integrityOf(sound)).toBeUndefined();
  found = new Map([[other, drift]]);
  const answer = (await verify()).body as { hosts: { host: string; drift: Drift[] }[] };
  expect(answer.hosts.find(({ host }) => host === sound)).toMatchObject({
    drift: [],
    quarantined: false,
  });
  expect(answer.hosts.find(({ host }) => host === other)).toMatchObject({
    drift,
    quarantined: false,
  });
  expect([await integrityOf(sound), await integrityOf(other)]).toEqual(['intact', 'drift']);
  expect((await look('/mgmt/metrics')).text).toContain('berth_hosts_checked{result="drift"} 1');
  expect(log.lines.filter((line) => line['event'] === 'host.drift' && line['host'] === other)).toHaveLength(
    1,
  );
  // One event for one drift, even if it is found again.
  await verify(other.slice(0, 8));
  expect(log.lines.filter((line) => line['event'] === 'host.drift')).toHaveLength(1);
  found = new Map();
  expect((await verify(other)).body).toMatchObject({ hosts: [{ drift: [] }] });
  expect(await integrityOf(other)).toBe('intact');
});

it('integrity check: checks every host periodically without a request', async () => {
  const host = await makeHost();
  stopChecks = broker.startIntegrityChecks('report', 20);
  await eventually('the host was checked', async () => (await integrityOf(host)) === 'intact');
});

// Fails if a failure is not recorded (the answer was a 503 after a minute), if it remains after a check that succeeded,
// or if it hides drift that is known; without the escapes of errorMessage, since Postgres refuses a NUL.
it('integrity check: reports which host could not be checked, and why, until a check succeeds', async () => {
  stopChecks = broker.startIntegrityChecks('report', hour);
  const [host, other] = [await makeHost(), await makeHost()];
  await verify();
  const last = (await verify(host)).body as { hosts: { checkedAt: string }[] };
  expect([await integrityOf(host), await integrityOf(other)]).toEqual(['intact', 'intact']);

  onVerify = (hostId) => {
    if (hostId === host) throw new Error('its VM does not run\u0000');
  };
  const answer = (await verify()).body as { hosts: { host: string; failure?: object }[] };
  expect(answer.hosts.find((one) => one.host === host)).toMatchObject({
    drift: [],
    checkedAt: last.hosts[0]?.checkedAt,
    failure: { at: expect.any(String) as string, reason: 'its VM does not run\\u0000' },
  });
  // The others are checked nevertheless.
  expect(answer.hosts.find((one) => one.host === other)?.failure).toBeUndefined();
  expect([await integrityOf(host), await integrityOf(other)]).toEqual(['check failed', 'intact']);
  expect((await look('/mgmt/metrics')).text).toContain('berth_hosts_checked{result="check failed"} 1');

  onVerify = () => undefined;
  expect((await verify(host)).body).toMatchObject({ hosts: [{ drift: [] }] });
  expect(await integrityOf(host)).toBe('intact');

  // Known drift remains known.
  found = new Map([[host, drift]]);
  await verify(host);
  onVerify = () => {
    throw new Error('its VM does not run');
  };
  expect((await verify(host)).body).toMatchObject({ hosts: [{ drift, failure: {} }] });
  expect(await integrityOf(host)).toBe('drift');
  onVerify = () => undefined;
  found = new Map();
});

// Fails if only hosts of instances are checked, or if a host with drift stays in the pool.
it.each(['report', 'quarantine'] as const)(
  'integrity check: a parked host with drift is never claimed, and destroyed, with the policy %s',
  async (policy) => {
    stopChecks = broker.startIntegrityChecks(policy, hour);
    await pool.runOnce();
    const pooled = async () => (await broker.store.records.poolHosts()).map(({ id }) => id);
    const [bad = '', good = ''] = await pooled();
    const sound = (await verify()).body as { hosts: { host: string; instance?: string }[] };
    expect(sound.hosts.find(({ host }) => host === bad)).toMatchObject({ drift: [] });
    expect(sound.hosts.find(({ host }) => host === bad)).not.toHaveProperty('instance');
    expect(await integrityOf(bad)).toBe('intact');

    found = new Map([[bad, drift]]);
    expect((await verify(bad)).body).toMatchObject({ hosts: [{ drift, quarantined: false }] });
    expect(log.lines).toContainEqual(expect.objectContaining({ event: 'host.drift', host: bad }));
    // It is the oldest, which a create would have claimed.
    expect([await makeHost(), await makeHost()]).not.toContain(bad);
    await pool.runOnce();
    expect((await broker.hypervisor.list()).map(({ hostId }) => hostId)).not.toContain(bad);
    expect(await pooled()).not.toContain(bad);
    expect(await integrityOf(good)).toBe('intact');
    found = new Map();
  },
);

const release = (host: string) =>
  supertest(broker.mgmt).delete(`/mgmt/hosts/${host}/quarantine`).auth(operator.username, operator.password);

const connect = async (hostId: string) => {
  const host = await broker.store.records.livingHost(hostId);
  if (host === undefined) throw new Error('the host is gone');
  return broker.hypervisor.connect(toHostSpec(host));
};

it('policy `quarantine`: disconnects a host with drift until an operator releases it', async () => {
  stopChecks = broker.startIntegrityChecks('quarantine', hour);
  const host = await makeHost();
  found = new Map([[host, drift]]);
  expect((await verify(host)).body).toMatchObject({ hosts: [{ drift, quarantined: true }] });
  expect(await integrityOf(host)).toBe('quarantined');
  expect(await broker.database('hosts').where({ id: host }).first()).toMatchObject({ engine_host: null });
  await expect(connect(host)).rejects.toThrow(/quarantine/);
  // Reconciliation does not restart it, not even if its VM ends.
  await broker.hypervisor.stop(host);
  await broker.reconcile();
  expect(await broker.database('operations').where({ kind: 'restart' })).toEqual([]);

  found = new Map();
  expect((await release(host)).status).toBe(202);
  await eventually('its quarantine has ended', async () => (await integrityOf(host)) !== 'quarantined');
  await broker.reconcile();
  const address = () =>
    broker.database('hosts').where({ id: host }).whereNotNull('engine_host').first<unknown>();
  await eventually('the host is reachable', async () => (await address()) !== undefined);
  await eventually('no operation is in progress', async () => {
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

  // An earlier release does not end a later quarantine.
  found = new Map([[host, drift]]);
  expect((await verify(host)).body).toMatchObject({ hosts: [{ quarantined: true }] });
  found = new Map();
  await verify();
  expect(await integrityOf(host)).toBe('quarantined');
});

// Fails if the next run does not complete the quarantine, or if an answer does not wait for that.
it('quarantine: the next worker completes one that was only recorded, and the answer waits for it', async () => {
  stopChecks = broker.startIntegrityChecks('quarantine', hour);
  const host = await makeHost();
  found = new Map([[host, drift]]);
  onQuarantine = () => Promise.reject(new Error('out of order'));
  let reads = 0;
  broker.database.on('query', ({ sql }: { sql: string }) => {
    if (sql.includes('AS awaited')) reads += 1;
  });
  let answered = false;
  const answer = createHostChecks(createCheckRequests(broker.database))
    .now(host)
    .finally(() => (answered = true));
  await eventually('it is recorded', async () => (await integrityOf(host)) === 'quarantined');
  await stopChecks();
  const readsBefore = reads;
  await eventually('the result was read again', () => answered || reads > readsBefore + 1);
  expect(answered).toBe(false);
  await expect(connect(host)).resolves.toBeDefined();

  onQuarantine = () => Promise.resolve();
  stopChecks = broker.startIntegrityChecks('report', hour);
  expect(await answer).toMatchObject([{ drift, quarantined: true }]);
  await expect(connect(host)).rejects.toThrow(/quarantine/);
});

it('release: is a 404 for a host that is not in quarantine', async () => {
  stopChecks = broker.startIntegrityChecks('report', hour);
  expect((await release(await makeHost())).status).toBe(404);
  expect((await release(randomUUID())).status).toBe(404);
  expect((await release('nonsense')).status).toBe(404);
});

it('verify: is a 404 for an unknown host, and a 400 for a malformed host id', async () => {
  stopChecks = broker.startIntegrityChecks('report', hour);
  expect((await verify('00000000')).status).toBe(404);
  expect((await verify('../x')).status).toBe(404);
  const wrong = await verify('nonsense');
  expect([wrong.status, (wrong.body as { description: string }).description]).toEqual([
    400,
    expect.stringContaining('HOST'),
  ]);
});
