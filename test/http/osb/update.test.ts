import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { HypervisorError } from '../../../src/core/hypervisor.ts';
import { eventually } from '../../support/eventually.ts';
import {
  bindBody,
  binding,
  catalogFile,
  hints,
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

describe('another plan', () => {
  it('takes effect on the host, keeps its ports and its bindings, and is what GET shows', async () => {
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

  it('26 with a smaller disk is refused and changes nothing', async () => {
    const id = await create();
    await patch(id, { plan_id: 'plan-disk' });
    const before = await hostOf(id);
    const answer = await patch(id, { plan_id: ids.plan });
    expect(answer.status).toBe(422);
    expect(answer.body['description']).toMatch(/smaller disk \(4 GiB\) than the host has now \(8 GiB\)/);
    expect(await hostOf(id)).toEqual(before);
  });

  it('that would pass a quota is refused, says what is in use, and changes nothing', async () => {
    const org = randomUUID();
    const [first, second] = [await create({}, org), await create({}, org)];
    expect((await patch(first, { plan_id: ids.otherPlan })).status).toBe(200);
    const before = await hostOf(second);
    const answer = await patch(second, { plan_id: ids.otherPlan });
    expect(answer.status).toBe(422);
    expect(answer.body['description']).toMatch(
      /vCPUs of this tenant would pass its limit of 6: 5 are in use, and this needs 3 more/,
    );
    expect(await hostOf(second)).toEqual(before);
    // What a failed or finished update had reserved is free again.
    expect((await patch(first, { plan_id: ids.plan })).status).toBe(200);
    expect((await patch(second, { plan_id: ids.otherPlan })).status).toBe(200);
  });

  it('13 needs the consent to wait, where there is work', async () => {
    const id = await create();
    expect(await patch(id, { plan_id: 'plan-disk' }, '')).toMatchObject({
      status: 422,
      body: { error: 'AsyncRequired' },
    });
  });
});

describe('parameters', () => {
  it('24 merge by key, and null takes one back', async () => {
    const id = await create({ published_ports: 3, egress: 'none' });
    expect((await patch(id, { parameters: { published_ports: 5 } })).status).toBe(200);
    expect(await fetched(id)).toMatchObject({ parameters: { published_ports: 5, egress: 'none' } });
    expect((await patch(id, { parameters: { published_ports: null } })).status).toBe(200);
    expect((await fetched(id)).parameters).toEqual({ egress: 'none' });
    expect(await hostOf(id)).toMatchObject({ ports: 10, egress: { kind: 'none' } });
  });

  it('24b of the merged result must satisfy the target plan', async () => {
    const id = await create({ egress: 'internet' });
    const answer = await patch(id, { plan_id: 'plan-quiet' });
    expect(answer.status).toBe(400);
    expect(answer.body['description']).toMatch(/^parameters\/egress /);
    expect(await fetched(id)).toMatchObject({ plan_id: ids.plan });
  });

  it('say what happens to a host that nobody uses, on create and later', async () => {
    const id = await create({ idle: 'suspend' });
    expect(await hostOf(id)).toMatchObject({ idle: 'suspend' });
    expect((await patch(id, { parameters: { idle: 'run' } })).status).toBe(200);
    expect(await hostOf(id)).toMatchObject({ idle: 'run' });
    expect((await patch(id, { parameters: { idle: null } })).status).toBe(200);
    expect(await hostOf(id)).toMatchObject({ idle: 'pause' });
    expect((await patch(id, { parameters: { idle: 'sleep' } })).status).toBe(400);
  });

  it('set and take back a term', async () => {
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

describe('what has no effect', () => {
  it('25c, 27 is 200 {} at once, also without the consent to wait', async () => {
    const id = await create({ published_ports: 10 });
    for (const body of [
      { plan_id: ids.plan },
      { parameters: {} },
      { parameters: { published_ports: null } },
      { context: { platform: 'cloudfoundry', organization_guid: 'org-of-this', instance_name: 'renamed' } },
      { plan_id: ids.plan, parameters: {}, context: { instance_name: 'again' }, maintenance_info: {} },
    ]) {
      const { context } = body as { context?: Record<string, string> };
      if (context?.['organization_guid'] !== undefined) delete context['organization_guid'];
      expect([body, await patch(id, body, '')]).toEqual([body, { status: 200, body: {} }]);
    }
    const row = (await broker.database('instances').where({ osb_id: id }).first()) as { context: object };
    expect(row.context).toMatchObject({ instance_name: 'again' });
  });

  it('27b names nothing at all: 422', async () => {
    const id = await create();
    const answer = await patch(id, {}, '');
    expect(answer.status).toBe(422);
    expect(answer.body['description']).toMatch(/nothing to change/);
  });

  it('27c a context of another tenant is refused', async () => {
    const id = await create();
    const answer = await patch(id, { context: { organization_guid: 'somebody-else' } }, '');
    expect(answer.status).toBe(422);
    expect(answer.body['description']).toMatch(/another owner/);
  });

  it('25d of an unknown instance: 404', async () => {
    expect((await patch(randomUUID(), { plan_id: ids.plan })).status).toBe(404);
  });
});

it('25, 23, 35, 39 while it runs: the same is 202 with the same operation, all else waits', async () => {
  const id = await create();
  const held = await makeTestBroker(inject('postgres'));
  try {
    const one = randomUUID();
    const worker = held.startWorker();
    await held
      .ask('put', `${instance(one)}?accepts_incomplete=true`)
      .send(provisionBody)
      .expect(201);
    await worker.stop();
    const ask = (body: object) =>
      held
        .askAsynchronous('patch', `${instance(one)}?accepts_incomplete=true`)
        .send({ service_id: ids.service, ...body });
    const first = await ask({ plan_id: ids.otherPlan });
    expect(first.status).toBe(202);
    const again = await ask({ plan_id: ids.otherPlan });
    expect([again.status, (again.body as { operation: string }).operation]).toEqual([
      202,
      (first.body as { operation: string }).operation,
    ]);
    const concurrency = { error: 'ConcurrencyError' };
    expect((await ask({ parameters: { egress: 'none' } })).body).toMatchObject(concurrency);
    expect((await held.ask('get', instance(one))).body).toMatchObject(concurrency);
    expect((await held.ask('put', binding(one, 'k')).send(bindBody)).body).toMatchObject(concurrency);
    const deletion = await held.ask('delete', `${instance(one)}?accepts_incomplete=true&${hints}`);
    expect(deletion.body).toMatchObject(concurrency);
    const last = await held.ask('get', `${instance(one)}/last_operation?plan_id=${ids.plan}`);
    expect(last.body).toMatchObject({ state: 'in progress' });
    held.startWorker('another');
    await eventually('the update has ended', async () => {
      const answer = await held.ask('get', `${instance(one)}/last_operation`);
      return (answer.body as { state: string }).state === 'succeeded';
    });
  } finally {
    await held.stop();
  }
  expect(await fetched(id)).toMatchObject({ plan_id: ids.plan });
});

describe('an update that fails', () => {
  const failing = async (acts: readonly string[], times: number) => {
    let left = 0;
    const faulty = await makeTestBroker(inject('postgres'), {
      faults: {
        before(act) {
          if (left > 0 && acts.includes(act)) {
            left -= 1;
            throw new HypervisorError(`${act} is broken on purpose`);
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
    '17, 26 at %s leaves the host serving as it was, and says so',
    async (act) => {
      const { faulty, id, last } = await failing([act], 3);
      try {
        expect(await last()).toMatchObject({ instance_usable: true, update_repeatable: true });
        expect((await last())['description']).toMatch(/is broken on purpose/);
        const answer = await faulty.ask('get', instance(id)).expect(200);
        expect(answer.body).toMatchObject({ plan_id: ids.plan });
        const [host] = await faulty.store.records.livingHosts();
        expect(host).toMatchObject({ planName: 'small', shape: { vcpus: 1 }, state: 'running' });
        expect(host?.engine).toBeDefined();
        expect((await faulty.ask('get', binding(id, 'key'))).status).toBe(200);
        expect(await faulty.database('hosts').whereNotNull('reserved_plan')).toEqual([]);
        // 28: a later update may repair it.
        const again = await faulty
          .ask('patch', `${instance(id)}?accepts_incomplete=true`)
          .send({ service_id: ids.service, plan_id: ids.otherPlan });
        expect(again.status).toBe(200);
      } finally {
        await faulty.stop();
      }
    },
  );

  it('17b and can not go back either says that the instance can not be used', async () => {
    const { faulty, last } = await failing(['start'], 8);
    try {
      expect(await last()).toMatchObject({ instance_usable: false, update_repeatable: true });
      // The next reconciliation brings it back, as after a crash.
      await faulty.reconcile();
      await eventually('the host serves again', async () => {
        const [host] = await faulty.store.records.livingHosts();
        return host?.engine !== undefined;
      });
    } finally {
      await faulty.stop();
    }
  });
});
