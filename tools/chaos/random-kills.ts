import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { workflows } from '../../src/operations/workflows.ts';
import { createApiClient } from './api-client.ts';
import type { Disaster } from './disasters/disaster.ts';
import { strike } from './disasters/strike.ts';
import { whenQuiet } from './drill.ts';
import { faultPoints } from './faults.ts';
import { liveOneInstance } from './instance-life.ts';
import { createPlatform } from './platform.ts';
import type { Random } from './random.ts';
import { createResidents } from './residents.ts';
import type { ChaosInstallation } from './installation.ts';
import { errorMessage } from '../../src/lib/error-message.ts';

export interface RunOptions {
  /** Number of processes to send SIGKILL to. Suspensions and restarts of Postgres come on top. */
  readonly kills: number;
  readonly random: Random;
  /** Concurrent tenants. */
  readonly lanes: number;
  readonly patienceMs: number;
  /** Disasters that strike in turn, one after each round of kills; none by default. */
  readonly strikes?: readonly Disaster[];
  readonly report: (line: string) => void;
}

/** Number of events by kind. */
export type Tally = Record<string, number>;

/** The most kills between two checks of all promises. */
const killsPerRound = 25;
/** Tenants that a disaster finds. */
const residentsCount = 3;
const maxPauseMs = 1_200;
const maxSuspensionMs = 9_000;

/**
 * Lets tenants come and go while processes are killed and suspended, in rounds. After each round, once no operation is
 * running, the database is compared with what exists; then a disaster strikes the tenants that stay.
 * @returns what was done, and descriptions of all violations.
 */
export async function runRandomKills(
  site: ChaosInstallation,
  options: RunOptions,
): Promise<{ kills: number; tally: Tally; violations: readonly string[] }> {
  const { random, kills, report, patienceMs, strikes = [] } = options;
  const tally: Tally = {};
  const violations: string[] = [];
  const count = (what: string) => {
    tally[what] = (tally[what] ?? 0) + 1;
  };
  const reportViolation = (violation: string) => violations.push(violation);
  const before = site.processes.map((one) => ({ process: one, crashes: one.crashes().length }));
  const firedBefore = site.faults.fired();
  let sent = 0;
  const killed = () => sent + site.faults.fired() - firedBefore;

  const chooser = random.branch('residents');
  const clients = { choose: () => chooser.pick(site.apiPorts), patienceMs, reportViolation };
  const platform = createPlatform(site, clients);
  const operator = createApiClient(site.credentials.mgmt, {
    ...{ ...clients, choose: () => chooser.pick(site.mgmtPorts) },
  });
  const residents = createResidents(site, { platform, random: chooser, patienceMs });
  const crashes = () =>
    before.flatMap(({ process, crashes: former }) =>
      process
        .crashes()
        .slice(former)
        .map((why) => `${process.name} ${why}`),
    );
  const isBroken = () => violations.length > 0;
  const rounds = Math.max(strikes.length, Math.ceil(kills / killsPerRound));

  for (let round = 1; round <= rounds && !isBroken(); round += 1) {
    const goal = Math.ceil((kills * round) / rounds);
    const isOver = () => killed() >= goal || isBroken();
    const killing = killAtRandom(site, random.branch(`killer ${round}`), isOver, (what) => {
      count(what);
      if (what.startsWith('SIGKILL')) sent += 1;
    });
    const lanes = Array.from({ length: options.lanes }, (_, lane) =>
      runTenants(site, options, random.branch(`lane ${round}.${lane}`), isOver, count, reportViolation).catch(
        (error: unknown) => {
          reportViolation(`lane ${lane}: ${errorMessage(error)}`);
        },
      ),
    );
    await Promise.all([killing, ...lanes]);
    await Promise.all(site.processes.map((one) => one.ready()));
    violations.push(...(await whenQuiet(site, options.patienceMs)));
    violations.push(...crashes());
    report(`round ${round}: ${killed()} kills, ${violations.length} violations`);
    const disaster = strikes[round - 1];
    if (disaster === undefined || isBroken()) continue;
    try {
      await residents.fill(residentsCount);
      const scene = { site, platform, operator, residents, patienceMs };
      violations.push(...(await strike(disaster, { ...scene, random: random.branch(`strike ${round}`) })));
      violations.push(...crashes());
    } catch (error) {
      reportViolation(`the residents of round ${round}: ${errorMessage(error)}`);
    }
    count(`disaster ${disaster.name}`);
    report(`round ${round}: ${disaster.name}, ${violations.length} violations`);
  }
  tally['kills at an armed step'] = site.faults.fired() - firedBefore;
  return { kills: killed(), tally, violations };
}

/** Kills and suspends at random until `isOver`; leaves nothing suspended. */
async function killAtRandom(
  site: ChaosInstallation,
  random: Random,
  isOver: () => boolean,
  did: (what: string) => void,
): Promise<void> {
  const points = faultPoints(workflows);
  const waking: Promise<void>[] = [];
  while (!isOver()) {
    await delay(random.integer(maxPauseMs));
    const dice = random.number(1);
    const target = random.pick(site.processes);
    if (dice < 0.4) {
      site.faults.arm(random.pick(points));
      did('armed a step');
    } else if (dice < 0.78) {
      if (target.signal('SIGKILL')) did(`SIGKILL ${target.name}`);
    } else if (dice < 0.95) {
      const forMs = random.integer(maxSuspensionMs);
      if (!target.signal('SIGSTOP')) continue;
      did(`SIGSTOP ${target.name}`);
      const pid = target.pid();
      waking.push(
        delay(forMs).then(() => {
          if (target.pid() === pid) target.signal('SIGCONT');
        }),
      );
    } else {
      await site.postgres.restart();
      did('restart of Postgres');
    }
  }
  site.faults.disarm();
  await Promise.all(waking);
}

/** Creates, uses and deletes one instance after another as platforms do, with retries and duplicates. */
async function runTenants(
  site: ChaosInstallation,
  { patienceMs }: RunOptions,
  random: Random,
  isOver: () => boolean,
  count: (what: string) => void,
  reportViolation: (violation: string) => void,
): Promise<void> {
  const choose = () => random.pick(site.apiPorts);
  const platform = createPlatform(site, { choose, patienceMs, reportViolation });
  const expect = (what: string, status: number, allowed: readonly number[]) => {
    count(what);
    if (!allowed.includes(status)) throw new Error(`${what} was answered ${status}`);
  };
  while (!isOver()) {
    const id = randomUUID();
    const duplicates = random.chance(0.3) ? 3 : 1;
    const created = await Promise.all(Array.from({ length: duplicates }, () => platform.create(id)));
    for (const { status } of created) expect('create', status, [200, 201, 202]);
    if (!random.chance(0.25))
      await liveOneInstance({ site, platform, random, patienceMs, reportViolation, expect }, id);
    // Also during a create, and repeatedly, as orphan mitigation does.
    const deletes = random.chance(0.3) ? 3 : 1;
    const removed = await Promise.all(Array.from({ length: deletes }, () => platform.remove(id)));
    for (const { status } of removed) expect('delete', status, [200, 202, 410]);
    const state = await platform.settled(id);
    if (state !== 'succeeded' && state !== 'gone') throw new Error(`the delete of ${id} ended as ${state}`);
  }
}
