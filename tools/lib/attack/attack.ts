import { setTimeout as delay } from 'node:timers/promises';
import type { Credentials } from '../../../src/http/osb/credentials-body.ts';
import type { Platform } from '../platform.ts';
import { type Attacker, startAttacker } from './attacker.ts';
import { createCostlyChain } from './costly-chain.ts';
import { attackFromInside } from './inside.ts';
import { openPinger, type Pinger } from './pinger.ts';

export interface AttackOptions {
  /** Connections that the attacker's tenant may have; it tries to open more. */
  readonly tenantConnections: number;
  /** The attacker's hosts; each has two bindings. */
  readonly attackerHosts: number;
  /** Creates that the attacker requests while it attacks, of the plan with this id. */
  readonly boots: { readonly count: number; readonly planId: string };
  /** Rounds of pings: each has some while the attackers on the node are suspended, and as many during the attack. */
  readonly rounds: number;
  readonly pingsPerRound: number;
  /** Creates of the victim, before the attack and during it. */
  readonly creates: number;
  /** Whether the attacker's guests write to their disks and begin flows too: needs real hosts. */
  readonly fromInside: boolean;
}

/** What happened to the victim. Times are medians in milliseconds. */
export interface AttackResult {
  /** Before the attack. */
  readonly quietPingMs: number;
  /** While the attackers on the node were suspended: a baseline that follows what else the node does. */
  readonly pausedPingMs: number;
  readonly attackedPingMs: number;
  readonly quietCreateMs: number;
  readonly attackedCreateMs: number;
  /** Creates of the victim that were answered 201 during the attack. */
  readonly created: number;
  /** Connections of the attacker's tenant when the measurement began, and those that ended: refusals and handshakes. */
  readonly attackerConnections: number;
  readonly attackerAttempts: number;
}

const [victimOrg, attackerOrg] = ['victim-org', 'attacker-org'];

/**
 * One tenant at its limits, and strangers beside it: its connections, costly and silent handshakes, boots, disk writes and
 * flows, from the node itself by other source addresses and from the tenant's guests. The victim pings over one connection all the time, and creates hosts.
 * @throws if that connection is cut, or the attacker does not reach its limits.
 */
export async function attack(
  platform: Platform,
  options: AttackOptions,
  progress: (line: string) => void,
): Promise<AttackResult> {
  const cleanUp: (() => unknown)[] = [];
  try {
    progress('hosts of the victim and of the attacker');
    const pinger = await victimsPinger(platform, cleanUp);
    const credentials = await attackersCredentials(platform, options, cleanUp);

    progress('quiet pings and creates');
    const quiet = await pinger.next(options.rounds * options.pingsPerRound);
    const quietCreates = await createSome(platform, 'quiet', options.creates);

    progress('the attack begins');
    // First, since it needs connections itself. Each host has two bindings.
    if (options.fromInside) {
      cleanUp.push(await attackFromInside(credentials.filter((_, index) => index % 2 === 0)));
    }
    const attackers = startAttackers(credentials, options);
    cleanUp.push(() => {
      for (const attacker of attackers) attacker.stop();
    });
    const [tenant, strangers] = attackers;
    await reached(
      'the tenant has all of its connections, and further ones are refused',
      () => tenant.open() >= options.tenantConnections && tenant.attempts() > 0,
    );
    await reached('strangers have begun', () => strangers.attempts() > 50);
    const attackerConnections = tenant.open();
    cleanUp.push(requestBoots(platform, options));

    const paused: number[] = [];
    const attacked: number[] = [];
    for (let round = 1; round <= options.rounds; round += 1) {
      progress(`pings, round ${round} of ${options.rounds}`);
      for (const attacker of attackers) attacker.signal('SIGSTOP');
      paused.push(...(await pinger.next(options.pingsPerRound)));
      for (const attacker of attackers) attacker.signal('SIGCONT');
      const before = strangers.attempts();
      await reached('strangers continue', () => strangers.attempts() > before + 10);
      attacked.push(...(await pinger.next(options.pingsPerRound)));
    }
    progress('creates during the attack');
    const attackedCreates = await createSome(platform, 'attacked', options.creates);
    await pinger.next(1);
    return {
      quietPingMs: medianOf(quiet),
      pausedPingMs: medianOf(paused),
      attackedPingMs: medianOf(attacked),
      quietCreateMs: medianOf(quietCreates.times),
      attackedCreateMs: medianOf(attackedCreates.times),
      created: attackedCreates.synchronous,
      attackerConnections,
      attackerAttempts: tenant.attempts() + strangers.attempts(),
    };
  } finally {
    progress('the attack ends');
    for (const act of cleanUp.reverse()) await act();
  }
}

async function victimsPinger(platform: Platform, cleanUp: (() => unknown)[]): Promise<Pinger> {
  cleanUp.push(() => platform.remove('victim'));
  await platform.create('victim', victimOrg);
  const pinger = await openPinger(await platform.bind('victim', 'victim-binding'));
  cleanUp.push(() => {
    pinger.close();
  });
  return pinger;
}

async function attackersCredentials(
  platform: Platform,
  options: AttackOptions,
  cleanUp: (() => unknown)[],
): Promise<Credentials[]> {
  const credentials: Credentials[] = [];
  for (let host = 1; host <= options.attackerHosts; host += 1) {
    const id = `attacker-${host}`;
    cleanUp.push(() => platform.remove(id));
    await platform.create(id, attackerOrg);
    for (const name of ['one', 'two']) credentials.push(await platform.bind(id, `${id}-${name}`));
  }
  return credentials;
}

/** A tenant that opens more connections than it may have, and strangers without credentials. */
function startAttackers(
  credentials: readonly Credentials[],
  options: AttackOptions,
): [tenant: Attacker, strangers: Attacker] {
  const port = Number(new URL(credentials[0]?.docker_host ?? '').port);
  const each = Math.ceil((options.tenantConnections * 1.1) / credentials.length);
  return [
    startAttacker({ port, localAddress: '127.0.0.2', tenants: { credentials, each } }),
    startAttacker({
      ...{ port, localAddress: '127.0.0.3', silent: 300 },
      handshakes: { atOnce: 30, chain: createCostlyChain(2) },
    }),
  ];
}

/** Requests creates without waiting for them. @returns a function that deletes what they made. */
function requestBoots(platform: Platform, { boots }: AttackOptions): () => Promise<void> {
  const ids = Array.from({ length: boots.count }, (_, index) => `boot-${index}`);
  const requested = ids.map((id) => platform.create(id, attackerOrg, boots.planId).catch(() => undefined));
  return async () => {
    for (const id of ids) await platform.remove(id);
    await Promise.all(requested);
  };
}

async function createSome(platform: Platform, name: string, count: number) {
  const times: number[] = [];
  let synchronous = 0;
  for (let index = 0; index < count; index += 1) {
    const id = `${name}-${index}`;
    const from = performance.now();
    try {
      if ((await platform.create(id, victimOrg)).synchronous) synchronous += 1;
      times.push(performance.now() - from);
    } finally {
      await platform.remove(id);
    }
  }
  return { times, synchronous };
}

const medianOf = (values: readonly number[]) =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;

const reachTimeoutMs = 90_000;

async function reached(what: string, ask: () => boolean): Promise<void> {
  const deadline = performance.now() + reachTimeoutMs;
  while (!ask()) {
    if (performance.now() > deadline) throw new Error(`the attack failed: waited in vain until ${what}`);
    await delay(20);
  }
}
