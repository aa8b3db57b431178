import { randomUUID } from 'node:crypto';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type * as drillModule from '../../tools/chaos/drill.ts';
import type * as faultsModule from '../../tools/chaos/faults.ts';
import type * as inspectModule from '../../tools/chaos/inspect.ts';
import type * as platformModule from '../../tools/chaos/platform.ts';
import type * as randomModule from '../../tools/chaos/random.ts';
import type * as runModule from '../../tools/chaos/run.ts';
import type * as siteModule from '../../tools/chaos/site.ts';
import { workflows } from '../../src/operations/workflows.ts';
import { ids } from '../../tools/chaos/catalog.ts';
import { compiledTools } from '../support/build.ts';
import { eventually } from '../support/eventually.ts';
import { testSlot } from '../support/test-slot.ts';

// The compiled modules, as the site's processes are: they find each other by their places.
let chaos: typeof drillModule &
  typeof faultsModule &
  typeof inspectModule &
  typeof platformModule &
  typeof randomModule &
  typeof runModule &
  typeof siteModule;
let site: siteModule.Site;
const patienceMs = 180_000;
/** Answers that no platform may get. */
let failures: string[] = [];

beforeAll(async () => {
  const directory = path.join(await compiledTools(), 'chaos');
  const load = async (name: string) =>
    (await import(pathToFileURL(path.join(directory, name)).href)) as object;
  const modules = await Promise.all(
    ['drill.js', 'faults.js', 'inspect.js', 'platform.js', 'random.js', 'run.js', 'site.js'].map(load),
  );
  chaos = Object.assign({}, ...modules) as typeof chaos;
  site = await chaos.startSite({ hypervisor: 'simulated', leaseMs: 1_500, seat: testSlot });
}, 240_000);
beforeEach(() => {
  failures = [];
});
afterEach(() => {
  expect(failures).toEqual([]);
});
afterAll(() => site.stop(), 60_000);

/** Asks the two apis in turn. */
function platformOf(): platformModule.PatientPlatform {
  let turn = 0;
  return chaos.createPlatform(site, {
    choose: () => site.apiPorts[(turn += 1) % site.apiPorts.length] ?? 0,
    patienceMs,
    complain: (violation) => failures.push(violation),
  });
}
const role = (name: string) => {
  const found = site.roles.find((one) => one.name === name);
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
const createBody = {
  service_id: ids.service,
  plan_id: ids.plan,
  organization_guid: 'chaos-org',
  space_guid: 'chaos-space',
};
/** Suspends both workers while `act` runs, so that nothing is done about what it asks for. */
async function withoutWorkers(act: () => Promise<void>): Promise<void> {
  const workers = ['worker 1', 'worker 2'].map(role);
  await Promise.all(workers.map((worker) => worker.ready()));
  for (const worker of workers) worker.signal('SIGSTOP');
  try {
    await act();
  } finally {
    for (const worker of workers) worker.signal('SIGCONT');
  }
}
/** Sends a request whose api is killed once `isCommitted` says that it has recorded it and is waiting. */
async function killBeforeAnswer(
  method: string,
  target: string,
  body: object | undefined,
  isCommitted: () => Promise<boolean>,
): Promise<void> {
  await role('api 1').ready();
  const answer = platformOf()
    .ask(site.apiPorts[0] ?? 0, method, target, body)
    .then(
      ({ status }) => `status ${status}`,
      () => 'no answer',
    );
  await eventually('the request is recorded', isCommitted, { deadlineMs: 20_000, everyMs: 5 });
  role('api 1').signal('SIGKILL');
  expect(await answer).toBe('no answer');
}

describe('a worker that is killed', { timeout: 900_000 }, () => {
  it('before, in or after any step of any kind of operation leaves it to be ended rightly', async () => {
    const { kills, violations } = await chaos.drill(site, platformOf(), {
      width: 4,
      patienceMs,
      report: () => undefined,
    });
    expect(violations).toEqual([]);
    expect(kills).toBe(chaos.faultPoints(workflows).length);
  });
});

describe('a worker that is suspended in the middle of a step', { timeout: 900_000 }, () => {
  it('does not act any more after another has taken over', async () => {
    const platform = platformOf();
    const id = randomUUID();
    const held = site.faults.armPause({ kind: 'provision', part: 'steps', step: 'start', moment: 'amid' });
    await platform.create(id);
    const pid = await eventually('a worker has suspended itself', held, { deadlineMs: 30_000 });
    expect(await platform.settled(id)).toBe('succeeded');
    // Who took over has ended it: it can't wake up in the middle of its step.
    const suspended = site.roles.find((one) => one.pid() === pid);
    expect(suspended).toBeUndefined();
    expect(await chaos.whenQuiet(site, patienceMs)).toEqual([]);
    await platform.remove(id);
    expect(await platform.settled(id)).toBe('succeeded');
  });

  it('or before it holds the host, finds its fence passed when it wakes up', async () => {
    const platform = platformOf();
    const id = randomUUID();
    await platform.create(id);
    await platform.settled(id);
    // Suspended between two operations as seen from the locks: it holds no host, but leases of its own.
    const other = randomUUID();
    const [first] = ['worker 1', 'worker 2'].map(role);
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

describe('an api that is killed between commit and answer', { timeout: 900_000 }, () => {
  it('has begun a create, which the retry joins, and a delete', async () => {
    const platform = platformOf();
    const id = randomUUID();
    await withoutWorkers(() =>
      killBeforeAnswer('PUT', `${route(id)}?accepts_incomplete=true`, createBody, async () =>
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

  it('has revoked a binding, and the retry waits for the gateways all the same', async () => {
    const platform = platformOf();
    const id = randomUUID();
    const bindingId = randomUUID();
    await platform.create(id);
    await platform.settled(id);
    const { credentials } = await platform.bind(id, bindingId);
    if (credentials === undefined) throw new Error('the binding has no credentials');
    const gateways = ['gateway 1', 'gateway 2'].map(role);
    for (const port of site.gatewayPorts) {
      await eventually(
        'the binding is let through',
        async () => (await chaos.knock(port, credentials)) === 'accepted',
        { deadlineMs: 30_000 },
      );
    }
    // A gateway that hangs keeps the unbind waiting.
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
    for (const port of site.gatewayPorts) expect(await chaos.knock(port, credentials)).not.toBe('accepted');
    await platform.remove(id);
    await platform.settled(id);
    expect(await chaos.whenQuiet(site, patienceMs)).toEqual([]);
  });
});

describe('Postgres that ends in the middle of operations', { timeout: 900_000 }, () => {
  it('is found again by every role, and each operation ends rightly', async () => {
    const platform = platformOf();
    const made = Array.from({ length: 6 }, () => randomUUID());
    const going = Array.from({ length: 3 }, () => randomUUID());
    await Promise.all(going.map((id) => platform.create(id)));
    await Promise.all(going.map((id) => platform.settled(id)));
    // One that is just starting again has nothing to mend.
    await Promise.all(site.roles.map((one) => one.ready()));
    const before = site.roles.map((one) => one.ends());
    const work = Promise.all([
      ...made.map((id) => platform.create(id)),
      ...going.map((id) => platform.remove(id)),
    ]);
    await eventually(
      'operations are under way',
      async () =>
        (await site.database('operations').where({ state: 'in progress' }).whereNotNull('lease_owner'))
          .length > 0,
      { everyMs: 5 },
    );
    await site.restartPostgres();
    await work;
    for (const id of made) expect(await platform.settled(id)).toBe('succeeded');
    for (const id of going) expect(['succeeded', 'gone']).toContain(await platform.settled(id));
    expect(await chaos.whenQuiet(site, patienceMs)).toEqual([]);
    // They have mended themselves; none was started again for it.
    expect(site.roles.map((one) => one.ends())).toEqual(before);
    await Promise.all(made.map((id) => platform.remove(id)));
    await Promise.all(made.map((id) => platform.settled(id)));
    expect(await chaos.whenQuiet(site, patienceMs)).toEqual([]);
  });
});

describe(
  'tenants that come and go while roles are killed and suspended at random',
  { timeout: 900_000 },
  () => {
    const seed = 11;
    it(`find everything as promised in the end (seed ${seed})`, async () => {
      const { kills, violations } = await chaos.wreak(site, {
        kills: 15,
        random: chaos.createRandom(seed),
        lanes: 4,
        patienceMs,
        report: () => undefined,
      });
      expect(violations).toEqual([]);
      expect(kills).toBeGreaterThanOrEqual(15);
    });
  },
);
