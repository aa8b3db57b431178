import { randomUUID } from 'node:crypto';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type * as engineModule from '../../tools/chaos/engine-client.ts';
import type * as disastersModule from '../../tools/chaos/disasters/disasters.ts';
import type * as drillModule from '../../tools/chaos/drill.ts';
import type * as faultsModule from '../../tools/chaos/faults.ts';
import type * as inspectModule from '../../tools/chaos/find-violations.ts';
import type * as platformModule from '../../tools/chaos/platform.ts';
import type * as randomModule from '../../tools/chaos/random.ts';
import type * as runModule from '../../tools/chaos/random-kills.ts';
import type * as siteModule from '../../tools/chaos/installation.ts';
import { workflows } from '../../src/operations/workflows.ts';
import { createBody, ids } from '../../tools/chaos/catalog.ts';
import { compiledTools } from '../support/build.ts';
import { eventually } from '../support/eventually.ts';
import { testSlot } from '../support/test-slot.ts';

// The compiled modules, because the installation's processes are found relative to them.
let chaos: typeof disastersModule &
  typeof drillModule &
  typeof engineModule &
  typeof faultsModule &
  typeof inspectModule &
  typeof platformModule &
  typeof randomModule &
  typeof runModule &
  typeof siteModule;
let site: siteModule.ChaosInstallation;
const patienceMs = 180_000;
/** Answers that no platform may ever get. */
let failures: string[] = [];

beforeAll(async () => {
  const directory = path.join(await compiledTools(), 'chaos');
  const load = async (name: string) =>
    (await import(pathToFileURL(path.join(directory, name)).href)) as object;
  const modules = await Promise.all(
    [
      'disasters/disasters.js',
      'drill.js',
      'engine-client.js',
      'faults.js',
      'find-violations.js',
      'platform.js',
      'random.js',
      'random-kills.js',
      'installation.js',
    ].map(load),
  );
  chaos = Object.assign({}, ...modules) as typeof chaos;
  site = await chaos.startInstallation({ hypervisor: 'simulated', leaseMs: 1_500, testSlot });
}, 240_000);
beforeEach(() => {
  failures = [];
});
afterEach(() => {
  expect(failures).toEqual([]);
});
afterAll(() => site.stop(), 60_000);

/** Uses the two apis in turn. */
function platformOf(): platformModule.PatientPlatform {
  let turn = 0;
  return chaos.createPlatform(site, {
    choose: () => site.apiPorts[(turn += 1) % site.apiPorts.length] ?? 0,
    patienceMs,
    reportViolation: (violation) => failures.push(violation),
  });
}
const processOf = (name: string) => {
  const found = site.processes.find((one) => one.name === name);
  if (found === undefined) throw new Error(`there is no ${name}`);
  return found;
};
const operationOf = (id: string) =>
  site
    .database('operations')
    .join('instances', 'instances.id', 'operations.instance_id')
    .where({ osb_id: id })
    .orderBy('operations.created_at', 'desc')
    .first<{ state: string; step: string; fence: string; lease_owner: string | null } | undefined>(
      'operations.*',
    );
const route = (id: string) => `/v2/service_instances/${id}`;
const hints = `service_id=${ids.service}&plan_id=${ids.plan}`;
/** Stops both workers (SIGSTOP) while `act` runs, so that its requests stay queued. */
async function withoutWorkers(act: () => Promise<void>): Promise<void> {
  const workers = ['worker 1', 'worker 2'].map(processOf);
  await Promise.all(workers.map((worker) => worker.ready()));
  for (const worker of workers) worker.signal('SIGSTOP');
  try {
    await act();
  } finally {
    for (const worker of workers) worker.signal('SIGCONT');
  }
}
/** Sends a request and kills its api after the request is recorded and before it is answered. */
async function killBeforeAnswer(
  method: string,
  target: string,
  body: object | undefined,
  isCommitted: () => Promise<boolean>,
): Promise<void> {
  await processOf('api 1').ready();
  const answer = platformOf()
    .ask(site.apiPorts[0] ?? 0, method, target, body)
    .then(
      ({ status }) => `status ${status}`,
      () => 'no answer',
    );
  await eventually('the request is recorded', isCommitted, { deadlineMs: 20_000, everyMs: 5 });
  processOf('api 1').signal('SIGKILL');
  expect(await answer).toBe('no answer');
}

describe('killed worker', { timeout: 900_000 }, () => {
  it('killed worker: every operation ends correctly, whichever step it was killed before, during or after', async () => {
    const { kills, violations } = await chaos.drill(site, platformOf(), {
      width: 4,
      patienceMs,
      report: () => undefined,
    });
    expect(violations).toEqual([]);
    expect(kills).toBe(chaos.faultPoints(workflows).length);
  });
});

describe('suspended worker', { timeout: 900_000 }, () => {
  it('suspended worker: is killed by the worker that takes over its operation', async () => {
    const platform = platformOf();
    const id = randomUUID();
    const stoppedPid = site.faults.armSuspension({
      kind: 'provision',
      phase: 'steps',
      step: 'start',
      moment: 'during',
    });
    await platform.create(id);
    const pid = await eventually('a worker has stopped', stoppedPid, { deadlineMs: 30_000 });
    expect(await platform.settled(id)).toBe('succeeded');
    // The worker that took over has killed it, so it can't resume in the middle of its step.
    const suspended = site.processes.find((one) => one.pid() === pid);
    expect(suspended).toBeUndefined();
    expect(await chaos.whenQuiet(site, patienceMs)).toEqual([]);
    await platform.remove(id);
    expect(await platform.settled(id)).toBe('succeeded');
  });

  it('suspended worker: finds a newer fence when it resumes', async () => {
    const platform = platformOf();
    const id = randomUUID();
    await platform.create(id);
    await platform.settled(id);
    // It has no host locked, but it holds leases.
    const other = randomUUID();
    const [first] = ['worker 1', 'worker 2'].map(processOf);
    await first?.ready();
    first?.signal('SIGSTOP');
    await Promise.all([platform.create(other), platform.remove(id)]);
    expect(await platform.settled(id)).toBe('succeeded');
    expect(await platform.settled(other)).toBe('succeeded');
    first?.signal('SIGCONT');
    expect(await chaos.whenQuiet(site, patienceMs)).toEqual([]);
    await platform.remove(other);
    await platform.settled(other);
  });
});

describe('api killed between commit and answer', { timeout: 900_000 }, () => {
  it('killed api: a retried create and a retried delete find the recorded operation', async () => {
    const platform = platformOf();
    const id = randomUUID();
    await withoutWorkers(() =>
      killBeforeAnswer('PUT', `${route(id)}?accepts_incomplete=true`, createBody(id), async () =>
        Boolean(await operationOf(id)),
      ),
    );
    expect([200, 201, 202]).toContain((await platform.create(id)).status);
    expect(await platform.settled(id)).toBe('succeeded');
    expect(await chaos.whenQuiet(site, patienceMs)).toEqual([]);

    const before = await operationOf(id);
    await withoutWorkers(() =>
      killBeforeAnswer('DELETE', `${route(id)}?accepts_incomplete=true&${hints}`, undefined, async () => {
        const now = await operationOf(id);
        return now?.state === 'in progress' && now.fence !== before?.fence;
      }),
    );
    expect([200, 202, 410]).toContain((await platform.remove(id)).status);
    await platform.settled(id);
    expect(await chaos.whenQuiet(site, patienceMs)).toEqual([]);
  });

  it('killed api: a retried unbind waits for the gateways', async () => {
    const platform = platformOf();
    const id = randomUUID();
    const bindingId = randomUUID();
    await platform.create(id);
    await platform.settled(id);
    const { credentials } = await platform.bind(id, bindingId);
    if (credentials === undefined) throw new Error('the binding has no credentials');
    const gateways = ['gateway 1', 'gateway 2'].map(processOf);
    for (const port of site.gatewayPorts) {
      await eventually(
        'the binding is accepted',
        async () => (await chaos.tryToConnect(port, credentials)) === 'accepted',
        { deadlineMs: 30_000 },
      );
    }
    // A stopped gateway delays the unbind.
    for (const gateway of gateways) gateway.signal('SIGSTOP');
    const target = `${route(id)}/service_bindings/${bindingId}?${hints}`;
    await killBeforeAnswer('DELETE', target, undefined, async () => {
      const row = await site
        .database('bindings')
        .where({ osb_id: bindingId })
        .first<{ state: string } | undefined>('state');
      return row?.state === 'revoked';
    });
    for (const gateway of gateways) gateway.signal('SIGCONT');
    expect([200, 410]).toContain((await platform.unbind(id, bindingId)).status);
    for (const port of site.gatewayPorts)
      expect(await chaos.tryToConnect(port, credentials)).not.toBe('accepted');
    await platform.remove(id);
    await platform.settled(id);
    expect(await chaos.whenQuiet(site, patienceMs)).toEqual([]);
  });
});

describe('Postgres crash', { timeout: 900_000 }, () => {
  it('Postgres crash: every process reconnects and every operation ends correctly', async () => {
    const platform = platformOf();
    const made = Array.from({ length: 6 }, () => randomUUID());
    const going = Array.from({ length: 3 }, () => randomUUID());
    await Promise.all(going.map((id) => platform.create(id)));
    await Promise.all(going.map((id) => platform.settled(id)));
    // A process that is still restarting would not show the reconnect.
    await Promise.all(site.processes.map((one) => one.ready()));
    const before = site.processes.map((one) => one.ends());
    const work = Promise.all([
      ...made.map((id) => platform.create(id)),
      ...going.map((id) => platform.remove(id)),
    ]);
    await eventually(
      'operations are running',
      async () =>
        (await site.database('operations').where({ state: 'in progress' }).whereNotNull('lease_owner'))
          .length > 0,
      { everyMs: 5 },
    );
    await site.postgres.restart();
    await work;
    for (const id of made) expect(await platform.settled(id)).toBe('succeeded');
    for (const id of going) expect(['succeeded', 'gone']).toContain(await platform.settled(id));
    expect(await chaos.whenQuiet(site, patienceMs)).toEqual([]);
    // All processes reconnected by themselves; none was restarted.
    expect(site.processes.map((one) => one.ends())).toEqual(before);
    await Promise.all(made.map((id) => platform.remove(id)));
    await Promise.all(made.map((id) => platform.settled(id)));
    expect(await chaos.whenQuiet(site, patienceMs)).toEqual([]);
  });
});

describe('random kills', { timeout: 900_000 }, () => {
  const seed = 11;
  it(`random kills: no promise is violated while tenants come and go (seed ${seed})`, async () => {
    const { kills, violations } = await chaos.runRandomKills(site, {
      kills: 15,
      random: chaos.createRandom(seed),
      lanes: 4,
      patienceMs,
      report: () => undefined,
    });
    expect(violations).toEqual([]);
    expect(kills).toBeGreaterThanOrEqual(15);
  });
});

describe('disasters', { timeout: 900_000 }, () => {
  const seed = 11;
  const find = (name: string) => {
    const found = chaos.disasters.find((one) => one.name === name);
    if (found === undefined) throw new Error(`there is no disaster ${name}`);
    return found;
  };
  it(`disasters: a second installation and a damaged record cost nothing (seed ${seed})`, async () => {
    const { tally, violations } = await chaos.runRandomKills(site, {
      ...{ kills: 0, random: chaos.createRandom(seed), lanes: 0, patienceMs, report: () => undefined },
      strikes: [find('second-installation'), find('corrupt-record')],
    });
    expect(violations).toEqual([]);
    expect(tally).toMatchObject({ 'disaster second-installation': 1, 'disaster corrupt-record': 1 });
  });
});
