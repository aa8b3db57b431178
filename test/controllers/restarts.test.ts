import supertest from 'supertest';
import { expect, it } from 'vitest';
import { deleteOldOperations } from '../../src/controllers/retention.ts';
import { instance, operator } from '../support/broker.ts';
import { eventually } from '../support/eventually.ts';
import { createPowerFixture } from './support/power-fixture.ts';

const fixture = createPowerFixture();

const restarts = async () => (await fixture.broker.database('operations').where({ kind: 'restart' })).length;
const runs = (host: string) =>
  eventually('the host runs', async () => {
    const { engine } = await fixture.rowOf(host);
    const busy = await fixture.broker.store.records.unfinishedOperation(
      (await fixture.rowOf(host)).instanceId,
    );
    return engine !== undefined && busy === undefined;
  });
/** The VM ends, which reconciliation sees. */
async function end(host: string): Promise<void> {
  await fixture.broker.hypervisor.stop(host);
  await fixture.broker.reconcile();
}
/** Seconds from the recorded end to the recorded next restart. */
async function pauseSeconds(): Promise<number> {
  const { database } = fixture.broker;
  const { rows } = await database.raw<{ rows: { seconds: string }[] }>(
    'SELECT extract(epoch FROM retry_at - ended_at) AS seconds FROM host_restarts',
  );
  return Math.round(Number(rows[0]?.seconds));
}
async function letPausePass(): Promise<void> {
  const { database } = fixture.broker;
  await database('host_restarts').update({ retry_at: database.raw('clock_timestamp()') });
  await fixture.broker.reconcile();
}
const look = (route: string) =>
  supertest(fixture.broker.mgmt).get(route).auth(operator.username, operator.password);

// Fails without host_restarts: every end was followed by a restart within seconds.
it('restart: a host that keeps ending is restarted at growing intervals, which tenant and operator see', async () => {
  const host = await fixture.makeHost('run');
  await end(host);
  await runs(host);
  expect(await restarts()).toBe(1);

  for (const seconds of [10, 20, 40]) {
    await end(host);
    // Another worker's reconciliation finds the same on record.
    await fixture.broker.reconcile();
    const before = await restarts();
    expect(await pauseSeconds()).toBe(seconds);
    const last = await fixture.broker.ask('get', `${instance(fixture.lastInstance)}/last_operation`);
    expect(last.body).toMatchObject({
      state: 'succeeded',
      description: expect.stringMatching(/next restart begins at/) as string,
    });
    expect((await look('/mgmt/hosts')).body).toMatchObject({
      hosts: [{ pausedRestart: { at: expect.any(String) as string } }],
    });
    expect((await look('/mgmt/metrics')).text).toContain('berth_hosts_restart_paused 1');
    await letPausePass();
    await runs(host);
    expect(await restarts()).toBe(before + 1);
  }
  expect((await look('/mgmt/metrics')).text).toContain('berth_hosts_restart_paused 0');

  // After it has run for a while, an end counts as the first.
  const { database } = fixture.broker;
  await database('operations').update({
    finished_at: database.raw(`clock_timestamp() - interval '11 minutes'`),
  });
  await end(host);
  await runs(host);
  expect(await restarts()).toBe(5);

  // Its operations don't grow without end: only the newest remains after a day.
  await database('operations').update({
    finished_at: database.raw(`clock_timestamp() - interval '25 hours'`),
  });
  await deleteOldOperations(fixture.broker);
  expect(await restarts()).toBe(1);
});

// Fails if a restart that failed counts as time that the host ran.
it('restart: the interval grows for a host whose engine never answers', async () => {
  const host = await fixture.makeHost('run');
  await end(host);
  await runs(host);
  const { database, store } = fixture.broker;
  await database('operations').update({
    finished_at: database.raw(`clock_timestamp() - interval '20 minutes'`),
  });
  await store.records.setHostUnreachable(host);
  await fixture.broker.reconcile();
  expect(await restarts()).toBe(1);
  expect(await pauseSeconds()).toBe(10);
});
