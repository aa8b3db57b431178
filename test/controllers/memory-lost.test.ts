import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import supertest from 'supertest';
import { expect, it } from 'vitest';
import { MemoryLostError } from '../../src/core/hypervisor/memory-lost-error.ts';
import { toHostSpec } from '../../src/core/model/host-spec.ts';
import { ids, instance, operator } from '../support/broker.ts';
import { eventually } from '../support/eventually.ts';
import { createPowerFixture } from './support/power-fixture.ts';

const fixture = createPowerFixture();

/** A suspended host whose memory can't be loaded. */
async function makeHostWithoutMemory(): Promise<string> {
  const host = await fixture.makeHost('run');
  await fixture.request(host, 'suspended');
  await fixture.makeWorker().fulfilRequests();
  expect(await fixture.stateOf(host)).toBe('suspended');
  const { stateDirectory } = fixture.broker;
  await writeFile(path.join(stateDirectory, 'simulated', 'hosts', host, 'memory.json'), 'damaged');
  return host;
}

async function expectBooted(host: string): Promise<void> {
  await eventually('the host runs', async () => (await fixture.rowOf(host)).engine !== undefined);
  expect(await fixture.stateOf(host)).toBe('running');
  expect(await fixture.rowOf(host)).toMatchObject({ power: 'running', startedFrom: 'boot' });
}

// Fails without the restart in power-switch.ts: each wake failed like the one before.
it('wake: a host whose memory is lost is restarted from its disk, which operator and tenant see', async () => {
  const host = await makeHostWithoutMemory();
  const worker = fixture.makeWorker();
  await fixture.request(host, 'running');
  await worker.fulfilRequests();
  await expectBooted(host);
  await eventually('the request is fulfilled', async () => {
    await worker.fulfilRequests();
    return (await fixture.requests()).length === 0;
  });

  await fixture.broker.reconcile();
  const at = (await fixture.rowOf(host)).memoryLostAt;
  expect(at).toBeInstanceOf(Date);
  const { mgmt } = fixture.broker;
  const listed = await supertest(mgmt).get('/mgmt/hosts').auth(operator.username, operator.password);
  expect(listed.body).toMatchObject({ hosts: [{ memoryLostAt: at?.toISOString() }] });
  const fetched = await fixture.broker.ask('get', instance(fixture.lastInstance));
  expect(fetched.body).toMatchObject({
    metadata: { attributes: { memory_lost_at: expect.stringMatching(/^\d{4}-/) as string } },
  });
});

it('worker killed after it has found that memory is lost: reconciliation restarts the host', async () => {
  const host = await makeHostWithoutMemory();
  const spec = toHostSpec(await fixture.rowOf(host));
  await expect(fixture.broker.hypervisor.resume(spec)).rejects.toThrow(MemoryLostError);
  await fixture.broker.reconcile();
  await expectBooted(host);
});

it('update: a suspended host whose memory is lost gets its new plan', async () => {
  const host = await makeHostWithoutMemory();
  const updated = await fixture.broker
    .ask('patch', `${instance(fixture.lastInstance)}?accepts_incomplete=true`)
    .send({ service_id: ids.service, plan_id: ids.otherPlan });
  expect(updated.status).toBe(200);
  await expectBooted(host);
});
