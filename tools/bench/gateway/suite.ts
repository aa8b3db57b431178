import { randomBytes, randomUUID } from 'node:crypto';
import { chmod, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Credentials } from '../../../src/http/osb/credentials-body.ts';
import { type Connection, openConnection, type Target } from './connection.ts';
import { makeImageArchive } from './image-archive.ts';
import { populate } from './population.ts';
import { cpuSeconds, rssMib } from '../lib/proc.ts';
import { buildRig, type Engine, type Rig, type Way, ways } from './rig.ts';
import { createUploader } from './upload.ts';
import { type Figure, figure } from '../lib/figures.ts';
import { median, p95 } from '../lib/statistics.ts';

interface Sizes {
  readonly uploads: number;
  readonly uploadMib: number;
  readonly pings: number;
}
const nativeSizes: Sizes = { uploads: 12, uploadMib: 256, pings: 1_000 };
/** Behind a real engine under emulation, which unpacks what it is sent. */
const guestSizes: Sizes = { uploads: 3, uploadMib: 16, pings: 100 };

const idleConnections = 1_000;
/** Fewer than the gateway takes of one address before they are admitted. */
const openedAtOnce = 50;
const streams = 100;
const cuts = 10;
const bindings = 300_000;
const openBindings = 200;
const inSyncDeadlineMs = 60_000;

/** What the gateway costs, compared with HAProxy and no gateway, alternating in one run. */
export async function gatewaySuite(
  options: { cacheDirectory: string; guests: boolean },
  progress: (line: string) => void,
): Promise<readonly Figure[]> {
  const native = await withRig('stand-in', options, progress, async (rig) => [
    ...(await passing(rig, 'gateway', nativeSizes, 'stand-in', progress)),
    ...(await idle(rig, progress)),
    ...(await cutting(rig, progress)),
    ...(await manyBindings(rig, progress)),
  ]);
  if (!options.guests) return native;
  const guest = await withRig('guest', options, progress, (rig) =>
    passing(rig, 'gateway.guest', guestSizes, 'guest', progress),
  );
  return [...native, ...guest];
}

async function withRig(
  engine: Engine,
  options: { cacheDirectory: string },
  progress: (line: string) => void,
  measure: (rig: Rig) => Promise<Figure[]>,
): Promise<Figure[]> {
  const rig = await buildRig(engine, options, progress);
  try {
    return await measure(rig);
  } finally {
    await rig.stop();
  }
}

/** Throughput of a load and latency of `_ping`. Names begin with `prefix`. */
async function passing(
  rig: Rig,
  prefix: string,
  sizes: Sizes,
  engine: Engine,
  progress: (line: string) => void,
): Promise<Figure[]> {
  const targets = rig.targets(await bind(rig));
  const content =
    engine === 'guest' ? await makeImageArchive(sizes.uploadMib) : randomBytes(sizes.uploadMib * 2 ** 20);
  const file = path.join(rig.directory, 'upload.tar');
  await writeFile(file, content);
  await chmod(file, 0o644);
  const uploader = createUploader({ directory: rig.directory, file, bytes: content.length });
  const pids = { haproxy: rig.haproxyPid, berth: rig.gatewayPid };

  const speeds = byWay();
  const cpu = byWay();
  // The first round warms caches and the JIT compiler, and is not counted.
  for (let round = 0; round <= sizes.uploads; round += 1) {
    progress(`${prefix}: load ${round} of ${sizes.uploads}`);
    for (const way of inTurn(round)) {
      const before = way === 'direct' ? 0 : await cpuSeconds(pids[way]);
      const speed = await uploader.upload(way, targets[way]);
      if (round === 0) continue;
      speeds[way].push(speed);
      if (way !== 'direct')
        cpu[way].push(((await cpuSeconds(pids[way])) - before) / (content.length / 2 ** 30));
    }
  }
  progress(`${prefix}: _ping`);
  const reused = await keptAlivePings(targets, sizes.pings);
  const fresh = await freshPings(targets, Math.ceil(sizes.pings / 5));
  const of = (samples: Record<Way, number[]>, way: Way) => median(samples[way]);
  return [
    ...ways.map((way) => figure(`${prefix}.load.${way}.mib_per_s`, of(speeds, way), 'MiB/s')),
    figure(`${prefix}.throughput_over_haproxy`, of(speeds, 'berth') / of(speeds, 'haproxy'), 'ratio'),
    figure(`${prefix}.load.haproxy.cpu_s_per_gib`, of(cpu, 'haproxy'), 's/GiB'),
    figure(`${prefix}.load.berth.cpu_s_per_gib`, of(cpu, 'berth'), 's/GiB'),
    ...ways.map((way) => figure(`${prefix}.ping.${way}.p50_ms`, of(reused, way), 'ms')),
    figure(`${prefix}.ping.berth.p95_ms`, p95(reused.berth), 'ms'),
    figure(`${prefix}.ping_added_ms`, of(reused, 'berth') - of(reused, 'direct'), 'ms'),
    figure(`${prefix}.ping_added_by_haproxy_ms`, of(reused, 'haproxy') - of(reused, 'direct'), 'ms'),
    ...ways.map((way) => figure(`${prefix}.connect_and_ping.${way}.p50_ms`, of(fresh, way), 'ms')),
    figure(`${prefix}.load.samples`, sizes.uploads, 'each'),
    figure(`${prefix}.ping.samples`, sizes.pings, 'each'),
  ];
}

const byWay = (): Record<Way, number[]> => ({ direct: [], haproxy: [], berth: [] });

/** Another first one each round, so that none always comes after the same. */
const inTurn = (round: number): Way[] =>
  ways.map((_, index) => ways[(index + round) % ways.length] ?? 'direct');

/** One connection each, kept for all requests. Milliseconds. */
async function keptAlivePings(targets: Readonly<Record<Way, Target>>, count: number) {
  const samples = byWay();
  const connections = new Map<Way, Connection>();
  for (const way of ways) connections.set(way, await openConnection(targets[way]));
  for (let round = 0; round < count; round += 1) {
    for (const way of inTurn(round)) {
      const begun = performance.now();
      await connections.get(way)?.get('/_ping');
      samples[way].push(performance.now() - begun);
    }
  }
  for (const connection of connections.values()) connection.close();
  return samples;
}

/** A connection for each request, handshake included. Milliseconds. */
async function freshPings(targets: Readonly<Record<Way, Target>>, count: number) {
  const samples = byWay();
  for (let round = 0; round < count; round += 1) {
    for (const way of inTurn(round)) {
      const begun = performance.now();
      const connection = await openConnection(targets[way]);
      await connection.get('/_ping');
      samples[way].push(performance.now() - begun);
      connection.close();
    }
  }
  return samples;
}

/** Memory of the two gateways for connections that are open and silent. */
async function idle(rig: Rig, progress: (line: string) => void): Promise<Figure[]> {
  progress(`${idleConnections} idle connections`);
  const figures: Figure[] = [];
  const targets = rig.targets(await bind(rig));
  for (const [way, pid] of [['berth', rig.gatewayPid] as const, ['haproxy', rig.haproxyPid] as const]) {
    const before = await rssMib(pid);
    const open = await openMany(targets[way], idleConnections, (connection) => connection.get('/_ping'));
    const after = await rssMib(pid);
    for (const connection of open) connection.close();
    const name = way === 'berth' ? 'gateway' : 'gateway.haproxy';
    figures.push(
      figure(`${name}.idle_${idleConnections}_rss_mib`, after, 'MiB'),
      figure(`${name}.idle_connection_kib`, ((after - before) * 1024) / idleConnections, 'KiB'),
    );
  }
  return figures;
}

/** From the DELETE of a binding to the end of the last of its streams, as their clients see it. */
async function cutting(rig: Rig, progress: (line: string) => void): Promise<Figure[]> {
  const times: number[] = [];
  for (let round = 1; round <= cuts; round += 1) {
    progress(`cut ${round} of ${cuts}, with ${streams} streams`);
    const bindingId = randomUUID();
    const target = rig.targets(await rig.platform.bind(rig.instanceId, bindingId)).berth;
    const open = await openMany(target, streams, (connection) => connection.get('/events'));
    const begun = performance.now();
    const cut = Promise.all(open.map(({ closed }) => closed)).then(() => performance.now() - begun);
    await rig.platform.unbind(rig.instanceId, bindingId);
    times.push(await cut);
  }
  return [
    figure(`gateway.cut_${streams}_streams_ms`, p95(times), 'ms'),
    figure(`gateway.cut_${streams}_streams.p50_ms`, median(times), 'ms'),
    figure(`gateway.cut_${streams}_streams.samples`, times.length, 'count'),
  ];
}

/** Memory, and the way back after a lost connection, with a lot of live bindings on record. */
async function manyBindings(rig: Rig, progress: (line: string) => void): Promise<Figure[]> {
  progress(`inserting ${bindings} bindings`);
  await populate(rig.database, bindings);
  const open: Connection[] = [];
  for (let count = 1; count <= openBindings; count += 1) {
    if (count === 1) progress(`opening ${openBindings} streams, each with its own binding`);
    const connection = await openConnection(rig.targets(await bind(rig)).berth);
    await connection.get('/events');
    open.push(connection);
  }
  const probe = rig.targets(await bind(rig)).berth;
  const times: number[] = [];
  for (let round = 0; round < 5; round += 1) times.push(await backInSync(rig, probe));
  const memory = await rssMib(rig.gatewayPid);
  let lost = 0;
  for (const connection of open) void connection.closed.then(() => (lost += 1));
  await delay(0);
  if (lost > 0) throw new Error(`${lost} streams were cut by a connection that was only lost for a moment`);
  for (const connection of open) connection.close();
  return [
    figure(`gateway.bindings_${bindings}_rss_mib`, memory, 'MiB'),
    figure(`gateway.bindings_${bindings}_read_ms`, median(times), 'ms'),
    figure(`gateway.bindings_${bindings}_open`, openBindings, 'count'),
  ];
}

/** Ends the gateway's connection to Postgres, and waits until it has another and serves. Milliseconds. */
async function backInSync(rig: Rig, probe: Target): Promise<number> {
  const { database } = rig;
  const gateways = async () => (await database<{ id: string }>('gateways').select('id')).map(({ id }) => id);
  const before = new Set(await gateways());
  const begun = performance.now();
  await database.raw(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'berth-gateway'`,
  );
  while (performance.now() - begun < inSyncDeadlineMs) {
    if ((await gateways()).some((id) => !before.has(id)) && (await answers(probe))) {
      return performance.now() - begun;
    }
    await delay(2);
  }
  throw new Error('the gateway did not come back after it had lost its connection to Postgres');
}

async function answers(target: Target): Promise<boolean> {
  const connection = await openConnection(target);
  try {
    await connection.get('/_ping');
    return true;
  } catch {
    return false;
  } finally {
    connection.close();
  }
}

async function openMany(
  target: Target,
  count: number,
  begin: (connection: Connection) => Promise<void>,
): Promise<Connection[]> {
  const open: Connection[] = [];
  while (open.length < count) {
    const more = Array.from({ length: Math.min(openedAtOnce, count - open.length) }, () =>
      openConnection(target),
    );
    open.push(...(await Promise.all(more)));
    await Promise.all(open.slice(-more.length).map(begin));
  }
  return open;
}

const bind = (rig: Rig): Promise<Credentials> => rig.platform.bind(rig.instanceId, randomUUID());
