import { beforeAll, expect, it, onTestFinished } from 'vitest';
import { type AttackOrders, startAttacker } from '../../tools/lib/attack/attacker.ts';
import { createCostlyChain } from '../../tools/lib/attack/costly-chain.ts';
import { createWorld, type World } from './support/certificates.ts';
import { startHttpEngine } from './support/engine.ts';
import { type Client, get, type Harness, openStream, startGateway } from './support/harness.ts';
import { until } from './support/until.ts';

let world: World;

beforeAll(async () => {
  world = await createWorld();
});

function attackUntilTheEnd(orders: AttackOrders) {
  const attacker = startAttacker(orders);
  onTestFinished(() => {
    attacker.stop();
  });
  return attacker;
}

const median = (values: number[]) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;

/** The median time of a ping over an open connection, of at least this number and while the condition is true. */
async function pings(client: Client, count: number, goesOn: () => boolean = () => false): Promise<number> {
  const times: number[] = [];
  const request = get('/_ping').replace('close', 'keep-alive');
  while (times.length < count || goesOn()) {
    const before = client.received().length;
    const from = performance.now();
    client.socket.write(request);
    await until('a ping is answered', () => client.received().length > before || client.over());
    if (client.over()) throw new Error('the stream was cut');
    times.push(performance.now() - from);
  }
  return median(times);
}

/** What an attack does to a tenant at another address: its stream, and new connections. */
async function victimOf(attack: (harness: Harness) => { attempts(): number }, attempts: number) {
  const engine = await startHttpEngine();
  const harness = await startGateway(world, { leaseMs: 2_000, renewEveryMs: 400 });
  const bound = await harness.bind(engine.address);
  const [stream, silent] = [harness.connect(bound), await openStream(harness, bound)];
  const quiet = await pings(stream, 200);
  const attacker = attack(harness);
  await until('the attack has begun', () => attacker.attempts() > 0);
  const attacked = await pings(stream, 200, () => attacker.attempts() < attempts);
  const answer = await harness.connect(bound).ask(get('/_ping'));
  return { harness, silent, answer, ratio: attacked / quiet, counters: harness.gateway.state().counters };
}

it.each([
  // Fails without a limit in bytes: these 69 certificates cost 0.4 s each time, and the lease runs out.
  ['69 certificates', 69, 'too-much'],
  // These pass it. Fails without shares in the queue: pings then take ten times as long.
  ['2 certificates', 2, undefined],
] as const)(
  'attack: costly handshakes with %s cut no stream, and pings are answered',
  async (_, length, dropped) => {
    const chain = createCostlyChain(length);
    const victim = await victimOf(
      ({ port }) => attackUntilTheEnd({ port, localAddress: '127.0.0.2', handshakes: { atOnce: 30, chain } }),
      100,
    );
    expect(victim.silent.over()).toBe(false);
    expect(victim.answer).toContain('200 OK');
    expect(victim.counters.cut['lease-lost']).toBe(0);
    if (dropped) expect(victim.counters.dropped[dropped]).toBeGreaterThan(50);
    expect(victim.ratio).toBeLessThan(5);
  },
  60_000,
);

it.each([
  // Fails without eviction within the address: the newcomer is dropped.
  ['2,000 silent connections', { silent: 2_000 }],
  ['400 connections that only begin a handshake', { hellos: 400 }],
])(
  'attack: %s do not keep a client with a binding at the same address out',
  async (_, orders) => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    attackUntilTheEnd({ port: harness.port, localAddress: '127.0.0.1', ...orders });
    const { dropped } = harness.gateway.state().counters;
    await until('the address is full', () => dropped['address-full'] > 0);
    // As an app does: it tries again if its connection was dropped.
    let answers = 0;
    for (let attempt = 1; attempt <= 500 && answers < 5; attempt += 1) {
      const client = harness.connect(bound);
      if ((await client.ask(get('/_ping'))).includes('200 OK')) answers += 1;
    }
    expect(answers).toBe(5);
  },
  60_000,
);
