import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Credentials } from '../core/credentials.ts';
import { operationPlans } from '../core/operations/plans.ts';
import { ids } from './catalog.ts';
import { whenQuiet } from './drill.ts';
import { faultPoints } from './faults.ts';
import { knock } from './inspect.ts';
import { occasions } from './occasions.ts';
import { createPlatform, type PatientPlatform } from './platform.ts';
import type { Random } from './random.ts';
import type { Site } from './site.ts';

export interface RunOptions {
  /** Kills to reach: ends of processes, suspensions, and restarts of Postgres. */
  readonly kills: number;
  readonly random: Random;
  /** Tenants at once. */
  readonly lanes: number;
  readonly patienceMs: number;
  readonly report: (line: string) => void;
}

/** What happened, by what it was. */
export type Tally = Record<string, number>;

/** So many kills between two looks at whether everything is as promised. */
const killsPerRound = 25;
const longestPauseMs = 1_200;
const longestSuspensionMs = 9_000;

/**
 * Tenants come and go while roles are killed and suspended, in rounds; after each, once nothing is under way,
 * everything is held against what is on record.
 * @returns what was done, and what was not as promised, in words.
 */
export async function wreak(
  site: Site,
  options: RunOptions,
): Promise<{ tally: Tally; violations: readonly string[] }> {
  const { random, kills, report } = options;
  const tally: Tally = {};
  const violations: string[] = [];
  const ends = () => site.roles.reduce((sum, role) => sum + role.ends(), 0);
  let elsewhere = 0;
  const total = () => ends() + elsewhere;
  const count = (what: string) => {
    tally[what] = (tally[what] ?? 0) + 1;
  };
  const begun = total();

  for (let round = 1; total() - begun < kills && violations.length === 0; round += 1) {
    const goal = Math.min(begun + kills, total() + killsPerRound);
    const isOver = () => total() >= goal || violations.length > 0;
    const killing = kill(site, random.branch(`killer ${round}`), isOver, (what) => {
      count(what);
      if (!what.startsWith('SIGKILL') && !what.startsWith('armed')) elsewhere += 1;
    });
    const lanes = Array.from({ length: options.lanes }, (_, lane) =>
      walk(site, options, random.branch(`lane ${round}.${lane}`), isOver, count).catch((error: unknown) => {
        violations.push(`lane ${lane}: ${error instanceof Error ? error.message : String(error)}`);
      }),
    );
    await Promise.all([killing, ...lanes]);
    await Promise.all(site.roles.map((role) => role.ready()));
    violations.push(...(await whenQuiet(site, options.patienceMs)));
    report(`round ${round}: ${total() - begun} kills, ${violations.length} violations`);
  }
  tally['ends of processes and suspensions, in all'] = total() - begun;
  return { tally, violations };
}

/** Kills and suspends at random, until told to stop; nothing is left suspended. */
async function kill(
  site: Site,
  random: Random,
  isOver: () => boolean,
  did: (what: string) => void,
): Promise<void> {
  const points = faultPoints(operationPlans);
  const waking: Promise<void>[] = [];
  while (!isOver()) {
    await delay(random.integer(longestPauseMs));
    const dice = random.number(1);
    const role = random.pick(site.roles);
    if (dice < 0.4) {
      site.faults.arm(random.pick(points));
      did('armed a step');
    } else if (dice < 0.78) {
      if (role.signal('SIGKILL')) did(`SIGKILL ${role.name}`);
    } else if (dice < 0.95) {
      const forMs = random.integer(longestSuspensionMs);
      if (!role.signal('SIGSTOP')) continue;
      did(`SIGSTOP ${role.name}`);
      const pid = role.pid();
      waking.push(
        delay(forMs).then(() => {
          if (role.pid() === pid) role.signal('SIGCONT');
        }),
      );
    } else {
      await site.restartPostgres();
      did('restart of Postgres');
    }
  }
  site.faults.disarm();
  await Promise.all(waking);
}

/** One tenant after another: creates, binds and deletes as platforms do, with their retries and duplicates. */
async function walk(
  site: Site,
  options: RunOptions,
  random: Random,
  isOver: () => boolean,
  count: (what: string) => void,
): Promise<void> {
  const platform = createPlatform(site, () => random.pick(site.apiPorts), options.patienceMs);
  const expect = (what: string, status: number, allowed: readonly number[]) => {
    count(what);
    if (!allowed.includes(status)) throw new Error(`${what} was answered ${status}`);
  };
  while (!isOver()) {
    const id = randomUUID();
    const duplicates = random.chance(0.3) ? 3 : 1;
    const created = await Promise.all(Array.from({ length: duplicates }, () => platform.create(id)));
    for (const { status } of created) expect('create', status, [200, 201, 202]);
    if (!random.chance(0.25)) await live(site, platform, id, random, options, expect);
    // Also in the middle of a create, and again and again, as orphan mitigation does.
    const deletes = random.chance(0.3) ? 3 : 1;
    const removed = await Promise.all(Array.from({ length: deletes }, () => platform.remove(id)));
    for (const { status } of removed) expect('delete', status, [200, 202, 410]);
    const state = await platform.settled(id);
    if (state !== 'succeeded' && state !== 'gone') throw new Error(`the delete of ${id} ended as ${state}`);
  }
}

/** The life of one instance, from the end of its create to before its delete. */
async function live(
  site: Site,
  platform: PatientPlatform,
  id: string,
  random: Random,
  { patienceMs }: RunOptions,
  expect: (what: string, status: number, allowed: readonly number[]) => void,
): Promise<void> {
  const state = await platform.settled(id);
  if (state !== 'succeeded') throw new Error(`the create of ${id} ended as ${state}`);
  const bindingId = randomUUID();
  const bound = await Promise.all(
    Array.from({ length: random.chance(0.3) ? 2 : 1 }, () => platform.bind(id, bindingId)),
  );
  for (const { status } of bound) expect('bind', status, [200, 201]);
  const [first, second] = bound.map(({ credentials }) => credentials);
  if (first === undefined) throw new Error(`the binding of ${id} has no credentials`);
  if (second !== undefined && second.key !== first.key) throw new Error('a retried bind has another key');
  await untilAccepted(site, random, first, patienceMs);

  if (random.chance(0.3)) {
    const { status } = await platform.update(id, ids.grown);
    expect('update', status, [200, 202]);
    if (random.chance(0.7)) await platform.settled(id);
  }
  if (random.chance(0.2)) {
    await occasions.restart.bring(site, platform, id);
    expect('end of a machine', 0, [0]);
  }
  if (random.chance(0.7)) {
    const { status } = await platform.unbind(id, bindingId);
    expect('unbind', status, [200, 410]);
    for (const port of site.gatewayPorts) {
      if ((await knock(port, first)) === 'accepted') throw new Error('a revoked certificate is accepted');
    }
  }
}

/** A live binding must be let through in the end, whatever is killed meanwhile. */
async function untilAccepted(
  site: Site,
  random: Random,
  credentials: Credentials,
  patienceMs: number,
): Promise<void> {
  const deadline = performance.now() + patienceMs;
  while ((await knock(random.pick(site.gatewayPorts), credentials)) !== 'accepted') {
    if (performance.now() > deadline) throw new Error('a live binding is never let through');
    await delay(200);
  }
}
