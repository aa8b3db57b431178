import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { workflows } from '../../src/operations/workflows.ts';
import { whenQuiet } from './drill.ts';
import { faultPoints } from './faults.ts';
import { live } from './life.ts';
import { createPlatform } from './platform.ts';
import type { Random } from './random.ts';
import type { Site } from './site.ts';
import { errorMessage } from '../../src/lib/error-message.ts';

export interface RunOptions {
  /** Kills to reach: processes that were sent SIGKILL. What is suspended or restarted is done besides. */
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
): Promise<{ kills: number; tally: Tally; violations: readonly string[] }> {
  const { random, kills, report } = options;
  const tally: Tally = {};
  const violations: string[] = [];
  const count = (what: string) => {
    tally[what] = (tally[what] ?? 0) + 1;
  };
  const complain = (violation: string) => violations.push(violation);
  const before = site.roles.map((role) => ({ role, crashes: role.crashes().length }));
  const firedBefore = site.faults.fired();
  let sent = 0;
  const killed = () => sent + site.faults.fired() - firedBefore;

  for (let round = 1; killed() < kills && violations.length === 0; round += 1) {
    const goal = Math.min(kills, killed() + killsPerRound);
    const isOver = () => killed() >= goal || violations.length > 0;
    const killing = kill(site, random.branch(`killer ${round}`), isOver, (what) => {
      count(what);
      if (what.startsWith('SIGKILL')) sent += 1;
    });
    const lanes = Array.from({ length: options.lanes }, (_, lane) =>
      walk(site, options, random.branch(`lane ${round}.${lane}`), isOver, count, complain).catch(
        (error: unknown) => {
          complain(`lane ${lane}: ${errorMessage(error)}`);
        },
      ),
    );
    await Promise.all([killing, ...lanes]);
    await Promise.all(site.roles.map((role) => role.ready()));
    violations.push(...(await whenQuiet(site, options.patienceMs)));
    for (const { role, crashes } of before)
      violations.push(
        ...role
          .crashes()
          .slice(crashes)
          .map((why) => `${role.name} ${why}`),
      );
    report(`round ${round}: ${killed()} kills, ${violations.length} violations`);
  }
  tally['kills at an armed step'] = site.faults.fired() - firedBefore;
  return { kills: killed(), tally, violations };
}

/** Kills and suspends at random, until told to stop; nothing is left suspended. */
async function kill(
  site: Site,
  random: Random,
  isOver: () => boolean,
  did: (what: string) => void,
): Promise<void> {
  const points = faultPoints(workflows);
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

/** One tenant after another: creates, lives and deletes as platforms do, with their retries and duplicates. */
async function walk(
  site: Site,
  { patienceMs }: RunOptions,
  random: Random,
  isOver: () => boolean,
  count: (what: string) => void,
  complain: (violation: string) => void,
): Promise<void> {
  const choose = () => random.pick(site.apiPorts);
  const platform = createPlatform(site, { choose, patienceMs, complain });
  const expect = (what: string, status: number, allowed: readonly number[]) => {
    count(what);
    if (!allowed.includes(status)) throw new Error(`${what} was answered ${status}`);
  };
  while (!isOver()) {
    const id = randomUUID();
    const duplicates = random.chance(0.3) ? 3 : 1;
    const created = await Promise.all(Array.from({ length: duplicates }, () => platform.create(id)));
    for (const { status } of created) expect('create', status, [200, 201, 202]);
    if (!random.chance(0.25)) await live({ site, platform, random, patienceMs, complain, expect }, id);
    // Also in the middle of a create, and again and again, as orphan mitigation does.
    const deletes = random.chance(0.3) ? 3 : 1;
    const removed = await Promise.all(Array.from({ length: deletes }, () => platform.remove(id)));
    for (const { status } of removed) expect('delete', status, [200, 202, 410]);
    const state = await platform.settled(id);
    if (state !== 'succeeded' && state !== 'gone') throw new Error(`the delete of ${id} ended as ${state}`);
  }
}
