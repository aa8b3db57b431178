import { randomUUID } from 'node:crypto';
import type { Credentials } from '../../../src/http/osb/credentials-body.ts';
import { createPlatformStore } from '../../../src/postgres/platforms.ts';
import { type Connection, createConnection } from './client.ts';
import { type Ask, type Tally, throughput, timed } from './load.ts';
import { buildRig, ownSlots, type Rig, type RigBroker } from './rig.ts';
import { type Population, seed, seededInstance, seededOrg } from './seed.ts';
import { type Figure, figure } from '../lib/figures.ts';
import { median, p95 } from '../lib/statistics.ts';

export interface ApiSuiteOptions {
  /** How long each throughput is measured. */
  readonly seconds: number;
  readonly profileDirectory: string | undefined;
}

const small: Population = { instances: 100, bindingsPerInstance: 3 };
const large: Population = { instances: 100_000, bindingsPerInstance: 3 };
const concurrency = 32;
const createsAtOnce = 200;
/** The comparison's rounds; in each, `perRound` requests of a kind go to one database and then to the other. */
const rounds = 30;
const perRound = 10;
const warmUpRequests = 300;

/** A broker whose database is filled. */
interface Filled {
  readonly broker: RigBroker;
  readonly asks: ReturnType<typeof createAsks>;
  readonly connection: Connection;
}

/** The OSB API on one core: latency, throughput, and what a hundred thousand instances cost. */
export async function apiSuite(
  options: ApiSuiteOptions,
  progress: (line: string) => void,
): Promise<readonly Figure[]> {
  const rig = await buildRig(options);
  const tally: Tally = { serverErrors: 0, limited: 0 };
  try {
    progress('200 creates at once');
    const creates = await createManyAtOnce(rig, tally);
    progress(`filling a database with ${small.instances} instances`);
    const few = await fill(rig, 'few', small);
    progress(`filling a database with ${large.instances} instances`);
    const many = await fill(rig, 'many', large);
    const scale = await compare(few, many, tally, progress);
    const rates = await measureThroughput(many, options.seconds, tally, progress);
    return [
      ...rates,
      ...scale,
      ...creates,
      figure('errors.5xx', tally.serverErrors, 'count'),
      figure('errors.429', tally.limited, 'count'),
    ];
  } finally {
    await rig.stop();
  }
}

interface Plan {
  readonly service_id: string;
  readonly plan_id: string;
  readonly name: string;
}

/** The catalog's first plan. */
async function firstPlan(connection: Connection): Promise<Plan> {
  const { body } = await connection.ask('GET', '/v2/catalog');
  const { services } = JSON.parse(body) as {
    services: { id: string; plans: { id: string; name: string }[] }[];
  };
  const [service] = services;
  const [plan] = service?.plans ?? [];
  if (service === undefined || plan === undefined) throw new Error('the catalog is empty');
  return { service_id: service.id, plan_id: plan.id, name: plan.name };
}

/** One real create and bind provide the values for the rows; then the same broker's database is filled. */
async function fill(rig: Rig, name: string, population: Population): Promise<Filled> {
  const broker = await rig.startBroker(name, { withWorker: false });
  const connection = createConnection(broker.port, broker.user);
  const plan = await firstPlan(connection);
  const platform = await createPlatformStore(broker.database).ensure('cloudfoundry');
  await seed(
    broker.database,
    {
      platformId: platform.id,
      serviceId: plan.service_id,
      planId: plan.plan_id,
      planName: plan.name,
      ...(await sampleBinding(broker, connection, plan)),
      firstSlot: ownSlots + 1,
    },
    population,
  );
  return { broker, connection, asks: createAsks(plan, population) };
}

/** How long a certificate and sealed credentials are, from a binding that was made for it. */
async function sampleBinding(
  broker: RigBroker,
  connection: Connection,
  plan: Plan,
): Promise<{ certificate: string; sealedBytes: number }> {
  const id = randomUUID();
  const provision = provisionAsk(plan, id, randomUUID());
  await connection.ask(provision.method, provision.path, provision.body);
  await broker.database('instances').where({ osb_id: id }).update({ state: 'ready' });
  await broker.database('operations').update({ state: 'succeeded', finished_at: new Date() });
  const answer = await connection.ask('PUT', bindingPath(id, randomUUID()), {
    service_id: plan.service_id,
    plan_id: plan.plan_id,
  });
  const { credentials } = JSON.parse(answer.body) as { credentials: Credentials };
  const row = await broker
    .database<{ sealed_credentials: Buffer }>('bindings')
    .first<{ sealed_credentials: Buffer }>('sealed_credentials');
  return { certificate: credentials.cert, sealedBytes: row.sealed_credentials.length };
}

const instancePath = (id: string) => `/v2/service_instances/${id}`;
const bindingPath = (id: string, bindingId: string) => `${instancePath(id)}/service_bindings/${bindingId}`;

function provisionAsk(plan: Plan, id: string, org: string, expect = 202): Ask {
  const space = randomUUID();
  return {
    method: 'PUT',
    path: `${instancePath(id)}?accepts_incomplete=true`,
    body: {
      service_id: plan.service_id,
      plan_id: plan.plan_id,
      organization_guid: org,
      space_guid: space,
      context: {
        platform: 'cloudfoundry',
        organization_guid: org,
        space_guid: space,
        instance_name: 'bench',
      },
    },
    expect,
  };
}

/** Requests about seeded instances, each about another one. */
function createAsks(plan: Plan, { instances }: Population) {
  let asked = 0;
  // A stride that is prime to any power of ten: no instance comes again before all others have.
  const next = () => (asked += 7_919) % instances;
  const hints = `service_id=${plan.service_id}&plan_id=${plan.plan_id}`;
  const body = { service_id: plan.service_id, plan_id: plan.plan_id };
  return {
    provision: () => provisionAsk(plan, randomUUID(), seededOrg(next())),
    bind: (): Ask => ({
      method: 'PUT',
      path: bindingPath(seededInstance(next()), randomUUID()),
      body: { ...body, bind_resource: { app_guid: randomUUID() } },
      expect: 201,
    }),
    fetch: (): Ask => ({
      method: 'GET',
      path: `${instancePath(seededInstance(next()))}?${hints}`,
      expect: 200,
    }),
    last_operation: (): Ask => ({
      method: 'GET',
      path: `${instancePath(seededInstance(next()))}/last_operation?${hints}`,
      expect: 200,
    }),
    catalog: (): Ask => ({ method: 'GET', path: '/v2/catalog', expect: 200 }),
  };
}

/** Kinds of requests whose cost must not grow with the database. */
const compared = ['provision', 'bind', 'fetch', 'last_operation'] as const;

/** Alternates, so that other load on the node affects both. */
async function compare(
  few: Filled,
  many: Filled,
  tally: Tally,
  progress: (line: string) => void,
): Promise<Figure[]> {
  const times = new Map<string, { few: number[]; many: number[] }>(
    compared.map((kind) => [kind, { few: [], many: [] }]),
  );
  for (const { connection, asks } of [few, many]) {
    for (let count = 0; count < warmUpRequests; count += 1) {
      for (const kind of ['bind', 'fetch', 'last_operation', 'catalog'] as const) {
        await timed(connection, asks[kind](), tally);
      }
    }
  }
  for (let round = 1; round <= rounds; round += 1) {
    progress(`${large.instances} instances compared with ${small.instances}: round ${round} of ${rounds}`);
    const order = round % 2 === 0 ? (['few', 'many'] as const) : (['many', 'few'] as const);
    for (const kind of compared) {
      for (const which of order) {
        const { connection, asks } = which === 'few' ? few : many;
        for (let count = 0; count < perRound; count += 1) {
          times.get(kind)?.[which].push(await timed(connection, asks[kind](), tally));
        }
      }
    }
  }
  const ratios = compared.map((kind) => {
    const samples = times.get(kind) ?? { few: [], many: [] };
    return { kind, few: median(samples.few), many: median(samples.many) };
  });
  const binds = times.get('bind')?.many ?? [];
  return [
    figure('bind.p50_ms', median(binds), 'ms'),
    figure('bind.p95_ms', p95(binds), 'ms'),
    figure('scale.100000_over_100', Math.max(...ratios.map((one) => one.many / one.few)), 'ratio'),
    ...ratios.flatMap((one) => [
      figure(`${one.kind}.100.p50_ms`, one.few, 'ms'),
      figure(`${one.kind}.100000.p50_ms`, one.many, 'ms'),
    ]),
  ];
}

async function measureThroughput(
  { broker, asks }: Filled,
  seconds: number,
  tally: Tally,
  progress: (line: string) => void,
): Promise<Figure[]> {
  const connections = Array.from({ length: concurrency }, () => createConnection(broker.port, broker.user));
  const figures: Figure[] = [];
  for (const kind of ['bind', 'last_operation', 'catalog'] as const) {
    progress(`${kind} at concurrency ${concurrency}`);
    const cpuBefore = await broker.apiCpuMs();
    const perSecond = await throughput(connections, asks[kind], seconds, tally);
    const cpu = (await broker.apiCpuMs()) - cpuBefore;
    figures.push(
      figure(`${kind}.per_s`, perSecond, '1/s'),
      figure(`${kind}.api_cpu_ms`, cpu / (perSecond * seconds), 'ms'),
    );
  }
  for (const connection of connections) connection.close();
  return figures;
}

/** Creates of as many tenants, all at once, with a worker that makes simulated hosts. */
async function createManyAtOnce(rig: Rig, tally: Tally): Promise<Figure[]> {
  const broker = await rig.startBroker('creates', { withWorker: true });
  const connections = Array.from({ length: createsAtOnce }, () => createConnection(broker.port, broker.user));
  const [first] = connections;
  if (first === undefined) throw new Error('no connection was opened');
  const plan = await firstPlan(first);
  const begun = performance.now();
  const times = await Promise.all(
    connections.map((connection) =>
      timed(connection, provisionAsk(plan, randomUUID(), randomUUID(), 201), tally),
    ),
  );
  const total = performance.now() - begun;
  for (const connection of connections) connection.close();
  const { rows } = await broker.database.raw<{ rows: { running: number }[] }>(
    `SELECT count(*)::integer AS running FROM hosts JOIN instances ON instances.id = instance_id
     WHERE hosts.state = 'running' AND instances.state = 'ready'`,
  );
  return [
    figure('creates_200.ended_rightly', rows[0]?.running ?? 0, 'count'),
    figure('creates_200.p50_ms', median(times), 'ms'),
    figure('creates_200.all_ms', total, 'ms'),
  ];
}
