import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, inject, it, vi } from 'vitest';
import { HypervisorError } from '../../../src/core/hypervisor/hypervisor-error.ts';
import { eventually } from '../../support/eventually.ts';
import {
  bindBody,
  binding,
  catalogFile,
  ids,
  instance,
  makeTestBroker,
  provisionBody,
  type TestBroker,
} from '../../support/broker.ts';

let broker: TestBroker;
const [offering] = catalogFile.offerings;
const plans = offering?.plans ?? [];
beforeAll(async () => {
  broker = await makeTestBroker(inject('postgres'), {
    catalog: {
      quotas: { tenant: { vcpus: 6 } },
      offerings: [
        {
          ...offering,
          plans: [
            ...plans,
            {
              ...plans[0],
              id: 'plan-disk',
              name: 'disk',
              host: { vcpus: 1, memory_mib: 768, disk_gib: 8, published_ports: 20 },
            },
            {
              ...plans[0],
              id: 'plan-few-ports',
              name: 'few-ports',
              host: { vcpus: 1, memory_mib: 768, disk_gib: 8, published_ports: 10 },
            },
            { ...plans[0], id: 'plan-inner', name: 'inner', egress: ['10.1.0.0/16'] },
            { ...plans[0], id: 'plan-quiet', name: 'quiet', egress: 'none' },
          ],
        },
      ],
    },
  });
  broker.startWorker();
});
afterAll(() => broker.stop());

const create = async (parameters: object = {}, org = randomUUID()) => {
  const id = randomUUID();
  await broker
    .ask('put', `${instance(id)}?accepts_incomplete=true`)
    .send({ ...provisionBody, organization_guid: org, parameters })
    .expect(201);
  return id;
};
const patch = async (id: string, body: object, query = '?accepts_incomplete=true') => {
  const answer = await broker
    .ask('patch', `${instance(id)}${query}`)
    .send({ service_id: ids.service, ...body });
  return { status: answer.status, body: answer.body as Record<string, unknown> };
};
const fetched = async (id: string) =>
  (await broker.ask('get', instance(id)).expect(200)).body as {
    plan_id: string;
    parameters: object;
    metadata: { attributes: Record<string, string> };
  };
const hostOf = async (id: string) =>
  (await broker
    .database('hosts')
    .join('instances', 'instances.id', 'hosts.instance_id')
    .where('osb_id', id)
    .select('hosts.*')
    .first()) as Record<string, unknown>;

describe('change of plan', () => {
  it('change of plan: takes effect on the host, retains its ports and bindings, and is shown by GET', async () => {
    const id = await create();
    await broker.ask('put', binding(id, 'key')).send(bindBody).expect(201);
    const before = await hostOf(id);
    const answer = await patch(id, { plan_id: 'plan-disk' });
    expect(answer).toMatchObject({ status: 200, body: { metadata: { attributes: { plan: 'disk' } } } });
    expect(await fetched(id)).toMatchObject({ plan_id: 'plan-disk' });
    expect(await hostOf(id)).toMatchObject({
      id: before['id'],
      first_port: before['first_port'],
      plan_name: 'disk',
      disk_gib: 8,
      ports: 20,
      state: 'running',
      reserved_plan: null,
    });
    expect((await broker.ask('get', binding(id, 'key'))).status).toBe(200);
  });

  it('change of plan: is refused without an effect if it exceeds a quota, naming what is in use', async () => {
    const org = randomUUID();
    const [first, second] = [await create({}, org), await create({}, org)];
    expect((await patch(first, { plan_id: ids.otherPlan })).status).toBe(200);
    const before = await hostOf(second);
    const answer = await patch(second, { plan_id: ids.otherPlan });
    expect(answer.status).toBe(422);
    expect(answer.body['description']).toMatch(
      /vCPUs of this tenant would exceed its limit of 6: 5 are in use, and this needs 3 more/,
    );
    expect(await hostOf(second)).toEqual(before);
    // A failed or finished update releases what it reserved.
    expect((await patch(first, { plan_id: ids.plan })).status).toBe(200);
    expect((await patch(second, { plan_id: ids.otherPlan })).status).toBe(200);
  });
});

describe('parameters of earlier requests', () => {
  // Fails without `checkMerged`: the message was about parameters that the request does not have.
  it('24f: names a kept parameter that the target plan does not allow, and how to change it', async () => {
    const id = await create();
    expect((await patch(id, { plan_id: 'plan-disk', parameters: { published_ports: 15 } })).status).toBe(200);
    const before = await hostOf(id);
    // Its disk can't shrink, so the plan is one with the same disk.
    const refused = await patch(id, { plan_id: 'plan-few-ports' });
    expect([refused.status, refused.body['description']]).toEqual([
      400,
      'parameters/published_ports must be <= 10: the instance has 15 from an earlier request. Set published_ports in the same request, or to null for the default of the plan few-ports.',
    ]);
    expect(await hostOf(id)).toEqual(before);
    const given = await patch(id, { plan_id: 'plan-few-ports', parameters: { published_ports: 11 } });
    expect(given.status).toBe(400);
    expect(given.body['description']).not.toContain('earlier request');
    const reset = { plan_id: 'plan-few-ports', parameters: { published_ports: null } };
    expect((await patch(id, reset)).status).toBe(200);
  });

  it('24f: names a kept egress that the target plan does not allow', async () => {
    const id = await create({ egress: ['9.9.9.0/24'] });
    const refused = await patch(id, { plan_id: 'plan-inner' });
    expect(refused.status).toBe(400);
    expect(refused.body['description']).toMatch(
      /is in none of the networks.*It is from an earlier request: set egress in the same request/,
    );
  });
});

describe('parameters', () => {
  it('idle: sets the idle policy of a host on create and update', async () => {
    const id = await create({ idle: 'pause' });
    expect(await hostOf(id)).toMatchObject({ idle: 'pause' });
    expect((await patch(id, { parameters: { idle: 'run' } })).status).toBe(200);
    expect(await hostOf(id)).toMatchObject({ idle: 'run' });
    expect((await patch(id, { parameters: { idle: null } })).status).toBe(200);
    expect(await hostOf(id)).toMatchObject({ idle: 'suspend' });
    expect((await patch(id, { parameters: { idle: 'sleep' } })).status).toBe(400);
  });

  it('sleep_now: requests sleep once and is not stored as a parameter', async () => {
    const id = await create({ idle: 'run' });
    const host = String((await hostOf(id))['id']);
    const asked = async () =>
      (await broker.store.records.powerRequests()).find(({ hostId }) => hostId === host)?.power;
    expect((await patch(id, { parameters: { sleep_now: 'nap' } })).status).toBe(400);
    expect((await patch(id, { parameters: { sleep_now: null } })).status).toBe(400);
    expect(await asked()).toBeUndefined();
    // It needs no operation.
    expect((await patch(id, { parameters: { sleep_now: 'pause' } }, '')).body).toEqual({});
    expect(await asked()).toBe('paused');
    expect((await patch(id, { parameters: { sleep_now: 'suspend', published_ports: 5 } })).status).toBe(200);
    expect(await asked()).toBe('suspended');
    expect((await fetched(id)).parameters).toEqual({ idle: 'run', published_ports: 5 });
    const again = { ...provisionBody, parameters: { sleep_now: 'pause' } };
    const made = await broker.ask('put', `${instance(randomUUID())}?accepts_incomplete=true`).send(again);
    expect(made.status).toBe(400);
  });

  it('expires_after: sets and removes an expiry', async () => {
    const id = await create();
    expect((await patch(id, { parameters: { expires_after: '2h' } }, '')).body).toEqual({});
    const { expires_at: end = '' } = (await fetched(id)).metadata.attributes;
    expect(Date.parse(end) - Date.now()).toBeGreaterThan(7_100_000);
    expect((await patch(id, { parameters: { expires_after: '2h' } }, '')).body).toEqual({});
    expect((await fetched(id)).metadata.attributes['expires_at']).toBe(end);
    await patch(id, { parameters: { expires_after: null } }, '');
    expect((await fetched(id)).metadata.attributes['expires_at']).toBeUndefined();
  });
});

describe('failed update', () => {
  const failing = async (acts: readonly string[], times: number) => {
    let left = 0;
    const faulty = await makeTestBroker(inject('postgres'), {
      // All its updates of the shape restart the host.
      liveGrowth: { vcpus: false, memory: false, disk: false },
      faults: {
        before(act) {
          if (left > 0 && acts.includes(act)) {
            left -= 1;
            throw new HypervisorError(`nft failed: at line 7: ${act}`, {
              summary: `${act} is broken on purpose`,
            });
          }
        },
      },
    });
    faulty.startWorker();
    const id = randomUUID();
    await faulty
      .ask('put', `${instance(id)}?accepts_incomplete=true`)
      .send(provisionBody)
      .expect(201);
    await faulty.ask('put', binding(id, 'key')).send(bindBody).expect(201);
    left = times;
    const answer = await faulty
      .ask('patch', `${instance(id)}?accepts_incomplete=true`)
      .send({ service_id: ids.service, plan_id: ids.otherPlan });
    expect(answer.status).toBe(202);
    const last = async () =>
      (await faulty.ask('get', `${instance(id)}/last_operation`)).body as Record<string, unknown>;
    await eventually('the update has failed', async () => (await last())['state'] === 'failed', {
      deadlineMs: 30_000,
    });
    return { faulty, id, last };
  };

  it.each(['reshape', 'start', 'connect'])(
    '17, 26: an update that fails at %s restores the host and reports that it is usable',
    async (act) => {
      const { faulty, id, last } = await failing([act], 3);
      try {
        expect(await last()).toMatchObject({ instance_usable: true, update_repeatable: true });
        expect((await last())['description']).toMatch(/is broken on purpose/);
        // Fails with the error's message as the reason: what a tool printed is for operators only.
        expect((await last())['description']).not.toMatch(/at line 7/);
        const answer = await faulty.ask('get', instance(id)).expect(200);
        expect(answer.body).toMatchObject({ plan_id: ids.plan });
        const [host] = await faulty.store.records.livingHosts();
        expect(host).toMatchObject({ planName: 'small', shape: { vcpus: 1 }, state: 'running' });
        expect(host?.engine).toBeDefined();
        expect((await faulty.ask('get', binding(id, 'key'))).status).toBe(200);
        expect(await faulty.database('hosts').whereNotNull('reserved_plan')).toEqual([]);
        // docs/osb.md 28: a later update may repair it.
        const again = await faulty
          .ask('patch', `${instance(id)}?accepts_incomplete=true`)
          .send({ service_id: ids.service, plan_id: ids.otherPlan });
        expect(again.status).toBe(200);
      } finally {
        await faulty.stop();
      }
    },
  );

  it('17b: an update whose rollback fails reports that the instance is unusable', async () => {
    const { faulty, last } = await failing(['start'], 8);
    try {
      expect(await last()).toMatchObject({ instance_usable: false, update_repeatable: true });
      // The next reconciliation restarts the host, as after a crash.
      await faulty.reconcile();
      await eventually('the host serves again', async () => {
        const [host] = await faulty.store.records.livingHosts();
        return host?.engine !== undefined;
      });
    } finally {
      await faulty.stop();
    }
  });

  // Fails if a rollback has no time limit.
  it('17b: an update ends although the engine answers neither after it nor after the rollback', async () => {
    const deaf = await makeTestBroker(inject('postgres'));
    try {
      const worker = deaf.startWorker();
      const id = randomUUID();
      await deaf
        .ask('put', `${instance(id)}?accepts_incomplete=true`)
        .send(provisionBody)
        .expect(201);
      await worker.stop();
      vi.spyOn(deaf.hypervisor, 'engineAnswers').mockResolvedValue(false);
      await deaf
        .askAsynchronous('patch', `${instance(id)}?accepts_incomplete=true`)
        .send({ service_id: ids.service, plan_id: ids.otherPlan })
        .expect(202);
      const longAgo = deaf.database.raw("now() - interval '1 hour'");
      await deaf.database('operations').where({ kind: 'update' }).update({ deadline: longAgo });
      deaf.startWorker();
      const report = await eventually('the update has failed', async () => {
        const { body } = (await deaf.ask('get', `${instance(id)}/last_operation`)) as {
          body: Record<string, unknown>;
        };
        return body['state'] === 'failed' ? body : undefined;
      });
      expect(report).toMatchObject({ instance_usable: false });
      expect(report['description']).toMatch(/The rollback timed out/);
    } finally {
      await deaf.stop();
    }
  });
});
