import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, expect, inject, it } from 'vitest';
import type { Capabilities } from '../../src/core/hypervisor/capabilities.ts';
import type { HostShape } from '../../src/core/hypervisor/host-spec.ts';
import { HypervisorError } from '../../src/core/hypervisor/hypervisor-error.ts';
import { openHostFiles, shapeInUse } from '../../src/hypervisors/simulated/host-files.ts';
import type { Faults } from '../../src/hypervisors/with-faults.ts';
import { catalogFile, ids, instance, makeTestBroker, type TestBroker } from '../support/broker.ts';
import { eventually } from '../support/eventually.ts';
import { createLineLogger } from '../support/logger.ts';

const [offering] = catalogFile.offerings;
const plan = { ...offering?.plans[0] };
const host = (vcpus: number, memory: number) => ({
  ...{ vcpus, memory_mib: memory, disk_gib: 8, published_ports: 10 },
});
const catalog = {
  offerings: [
    {
      ...offering,
      plans: [
        plan,
        { ...plan, id: 'plan-big', name: 'big', host: host(2, 1024) },
        { ...plan, id: 'plan-mixed', name: 'mixed', host: host(1, 768) },
      ],
    },
  ],
};
const small: HostShape = { vcpus: 1, memoryMib: 768, diskGib: 4 };
const big: HostShape = { vcpus: 2, memoryMib: 1024, diskGib: 8 };
const parts = ['vcpus', 'memory', 'disk'] as const;

let broker: TestBroker;
let log: ReturnType<typeof createLineLogger>;
let faults: Partial<Faults>;
/** Acts since the update began. */
let acts: string[];
/** What last_operation said when the VM was about to be stopped. */
let announced: string[];
let instanceId: string;

async function open(liveGrowth?: Capabilities['liveGrowth']): Promise<void> {
  log = createLineLogger();
  broker = await makeTestBroker(inject('postgres'), {
    catalog,
    logger: log.logger,
    ...(liveGrowth && { liveGrowth }),
    faults: {
      async before(act, hostId) {
        acts.push(act);
        if (act === 'stop') announced.push((await last()).description);
        await faults.before?.(act, hostId);
      },
      takesIntoUse: (part, hostId) => faults.takesIntoUse?.(part, hostId) ?? true,
    },
  });
  broker.startWorker();
}

beforeEach(async () => {
  [faults, acts, announced] = [{}, [], []];
  await open();
});
afterEach(() => broker.stop());

const last = async () =>
  (await broker.ask('get', `${instance(instanceId)}/last_operation`)).body as {
    state: string;
    description: string;
  };

async function create(planId: string = ids.plan) {
  instanceId = randomUUID();
  await broker
    .ask('put', `${instance(instanceId)}?accepts_incomplete=true`)
    .send({ service_id: ids.service, plan_id: planId, organization_guid: 'org', space_guid: 'space' })
    .expect(201);
  acts = [];
  return hostOf();
}

async function update(planId: string) {
  await broker
    .askAsynchronous('patch', `${instance(instanceId)}?accepts_incomplete=true`)
    .send({ service_id: ids.service, plan_id: planId })
    .expect(202);
  return eventually(
    'the update has ended',
    async () => {
      const report = await last();
      return report.state === 'in progress' ? undefined : report;
    },
    { deadlineMs: 30_000 },
  );
}

async function hostOf() {
  const [host] = await broker.store.records.livingHosts();
  if (host === undefined) throw new Error('there is no host');
  return host;
}

/** The host's own record, and what its guest uses. */
async function onNode() {
  const host = await openHostFiles(broker.stateDirectory).readHost((await hostOf()).id);
  if (host?.vm === undefined) throw new Error('no VM is on record');
  return { vm: host.vm, recorded: host.spec.shape, used: shapeInUse(host) };
}

/** The VM is the same one, and was never out of reach. */
async function expectUndisturbed(before: Awaited<ReturnType<typeof onNode>>) {
  expect(acts).not.toContain('stop');
  expect(acts).not.toContain('reshape');
  const { port, guestReadyAt, startedFrom } = before.vm;
  expect((await onNode()).vm).toMatchObject({ port, guestReadyAt, startedFrom });
}

async function expectShape(shape: HostShape) {
  expect(await onNode()).toMatchObject({ recorded: shape, used: shape });
  expect(await hostOf()).toMatchObject({ shape, state: 'running', power: 'running' });
  expect((await hostOf()).engine).toBeDefined();
}

// Fails without the step `grow`: the host was stopped.
it('update that only adds: is applied while the host runs, which is never out of reach', async () => {
  const { engine } = await create();
  const before = await onNode();
  const reachable: boolean[] = [];
  faults.before = async () => void reachable.push((await hostOf()).engine !== undefined);
  expect(await update('plan-big')).toMatchObject({ state: 'succeeded' });
  await expectUndisturbed(before);
  await expectShape(big);
  expect((await hostOf()).engine).toEqual(engine);
  expect(reachable).not.toContain(false);
});

it('update that only adds: wakes a suspended host instead of booting it', async () => {
  const { id } = await create();
  const before = await onNode();
  await broker.hypervisor.suspend(id);
  expect(await update('plan-big')).toMatchObject({ state: 'succeeded' });
  await expectUndisturbed(before);
  await expectShape(big);
});

it('update that only adds: a host without a VM starts with its new size', async () => {
  const { id } = await create();
  await broker.hypervisor.stop(id);
  await broker.store.records.setHostUnreachable(id);
  expect(await update('plan-big')).toMatchObject({ state: 'succeeded' });
  expect(acts).not.toContain('grow');
  await expectShape(big);
});

// Each fails if a failure of `grow` fails the update, or if only the host's record is asked for its shape.
it.each(parts)('update that only adds: restarts the host if it fails at its %s', async (failing) => {
  await create();
  faults.takesIntoUse = (part) => {
    if (part === failing) throw new HypervisorError(`QEMU refuses more ${part}`);
    return true;
  };
  expect(await update('plan-big')).toMatchObject({ state: 'succeeded' });
  expect(announced).toEqual([
    'Updating: restarting the virtual machine, since it does not have its size yet',
  ]);
  await expectShape(big);
  const warnings = log.lines.filter(({ message }) => message.includes('it is restarted instead'));
  expect(warnings).toHaveLength(1);
});

it('update that only adds: waits for a slow guest, and restarts one that never uses what was added', async () => {
  await create();
  let asked = 0;
  faults.takesIntoUse = () => {
    asked += 1;
    if (asked === 6) throw new HypervisorError('the guest has not taken its CPUs into use within 20 s');
    return false;
  };
  expect(await update('plan-big')).toMatchObject({ state: 'succeeded' });
  expect(acts.filter((act) => act === 'grow')).toHaveLength(6);
  expect(announced).toHaveLength(1);
  await expectShape(big);
});

/**
 * Updates a host while its worker is killed once, and expects that the update continues without a restart of the host. A step
 * that throws is run again from its beginning, as after a kill.
 */
async function expectContinues(arm: (kill: () => void) => void): Promise<void> {
  await create();
  const before = await onNode();
  let isKilled = false;
  arm(() => {
    if (isKilled) return;
    isKilled = true;
    throw new Error('killed');
  });
  expect(await update('plan-big')).toMatchObject({ state: 'succeeded' });
  expect(isKilled).toBe(true);
  await expectUndisturbed(before);
  await expectShape(big);
}

it.each([
  ...['prepare', 'start', 'identify', 'grow', 'hasShape'],
  ...['connect', 'engineAnswers', 'restartContainers'],
])('update that only adds: continues after a kill before %s', (point) =>
  expectContinues((kill) => {
    faults.before = (act) => {
      if (act === point) kill();
    };
  }),
);

it.each(parts)('update that only adds: continues after a kill before its %s is added', (at) =>
  expectContinues((kill) => {
    faults.takesIntoUse = (part) => {
      if (part === at) kill();
      return true;
    };
  }),
);

it.each(['stop', 'start'])(
  'update that restarts a host which has grown in part: continues after a kill before %s',
  async (point) => {
    await create();
    let isKilled = false;
    faults.takesIntoUse = (part) => {
      if (part === 'memory') throw new HypervisorError('QEMU refuses more memory');
      return true;
    };
    faults.before = (act) => {
      if (act !== point || isKilled || !acts.includes('hasShape')) return;
      isKilled = true;
      throw new Error('killed');
    };
    expect(await update('plan-big')).toMatchObject({ state: 'succeeded' });
    expect(isKilled).toBe(true);
    await expectShape(big);
  },
);

it('update to a smaller plan: restarts the host, and says so before', async () => {
  await create('plan-big');
  expect(await update('plan-mixed')).toMatchObject({ state: 'succeeded' });
  expect(announced).toEqual([
    "Updating: restarting the virtual machine, since CPUs and memory can't be removed from a running one",
  ]);
  expect(acts).not.toContain('grow');
  await expectShape({ ...small, diskGib: 8 });
});

// Fails if the steps remember that the update needs no restart: the host kept what was added.
it('update that has grown the host and fails: the host gets its former size back', async () => {
  await create();
  let failures = 3;
  faults.before = (act) => {
    if (act !== 'connect' || failures === 0) return;
    failures -= 1;
    throw new HypervisorError('nft failed');
  };
  const { state, description } = await update('plan-big');
  expect([state, description]).toEqual(['failed', expect.stringContaining('nft failed')]);
  expect(announced).toEqual([
    expect.stringMatching(
      /^Rolling back: restarting the virtual machine, since it returns to what it was \(/,
    ),
  ]);
  const { recorded, used } = await onNode();
  expect([recorded, used]).toEqual(Array(2).fill({ ...small, diskGib: 8 }));
  expect(await hostOf()).toMatchObject({ shape: small, state: 'running' });
});

// Fails if `hasShape` asks the VM only: the next start would have given the host what its plan does not have.
it('update that is killed before anything was added, and fails: the host’s record is undone too', async () => {
  await create();
  faults.takesIntoUse = () => {
    throw new Error('killed');
  };
  expect(await update('plan-big')).toMatchObject({ state: 'failed' });
  const { recorded, used } = await onNode();
  expect([recorded, used]).toMatchObject(Array(2).fill({ vcpus: 1, memoryMib: 768 }));
  expect((await hostOf()).shape).toEqual(small);
});

it('update with a driver that can not grow hosts: restarts the host, and says so before', async () => {
  await broker.stop();
  await open({ vcpus: false, memory: true, disk: false });
  await create();
  expect(await update('plan-big')).toMatchObject({ state: 'succeeded' });
  expect(announced).toEqual([
    "Updating: restarting the virtual machine, since this hypervisor can't add CPUs and disk to a running one",
  ]);
  expect(acts).not.toContain('grow');
  await expectShape(big);
});
