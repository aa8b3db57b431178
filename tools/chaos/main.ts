import { Command, CommanderError, InvalidArgumentError } from 'commander';
import path from 'node:path';
import type { OperationKind } from '../../src/core/model/operation.ts';
import type { Disaster } from './disasters/disaster.ts';
import { deal, disasters, possibleDisasters } from './disasters/disasters.ts';
import { drill, operationKinds } from './drill.ts';
import { createPlatform } from './platform.ts';
import { createRandom } from './random.ts';
import { runRandomKills, type Tally } from './random-kills.ts';
import { startInstallation } from './installation.ts';

function positive(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1)
    throw new InvalidArgumentError('It must be a whole number of at least 1.');
  return value;
}

function hypervisorOf(text: string): 'qemu' | 'simulated' {
  if (text !== 'qemu' && text !== 'simulated')
    throw new InvalidArgumentError('It must be qemu or simulated.');
  return text;
}

function disastersOf(text: string): readonly Disaster[] {
  return text.split(',').map((name) => {
    const disaster = disasters.find((one) => one.name === name);
    if (disaster === undefined)
      throw new InvalidArgumentError(`Disasters are ${disasters.map((one) => one.name).join(', ')}.`);
    return disaster;
  });
}

function kindsOf(text: string): readonly OperationKind[] {
  return text.split(',').map((name) => {
    const kind = operationKinds.find((one) => one === name);
    if (kind === undefined) throw new InvalidArgumentError(`Kinds are ${operationKinds.join(', ')}.`);
    return kind;
  });
}

interface Options {
  readonly runs: number;
  readonly seed: number;
  readonly hypervisor: 'qemu' | 'simulated';
  readonly cache: string;
  readonly testSlot: number;
  readonly kinds?: readonly OperationKind[];
  readonly disasters: readonly Disaster[];
}

/** Kills for which a disaster strikes. */
const runsPerDisaster = 12;

const program = new Command('chaos')
  .description(
    'Starts a separate broker, kills and suspends its processes while tenants come and go, and reports every violated promise. First, a worker is killed before, during and after every step of every kind of operation.',
  )
  .option('--runs <number>', 'number of kills', positive, 300)
  .option('--seed <number>', 'seed of all random choices; timing still varies', positive, 1)
  .option('--hypervisor <name>', 'qemu (real hosts) or simulated', hypervisorOf, 'simulated')
  .option('--cache <directory>', 'folder of the guest image and templates', '/var/cache/berth-chaos')
  .option('--test-slot <number>', 'separates concurrent runs: 1 to 9', positive, 9)
  .option('--kinds <list>', 'comma-separated kinds of operations for the first part (default: all)', kindsOf)
  .option(
    '--disasters <list>',
    'comma-separated disasters for the second part (default: all)',
    disastersOf,
    disasters,
  )
  .exitOverride();

/** Disasters that were expected, with this number of strikes, and did not occur. */
function neverStruck(
  possible: readonly Disaster[],
  { length: strikes }: readonly Disaster[],
  tally: Tally,
): readonly string[] {
  if (strikes < possible.length) return [];
  return possible
    .filter(({ name }) => tally[`disaster ${name}`] === undefined)
    .map(({ name }) => `the disaster ${name} never occurred in ${strikes} strikes`);
}

async function run({
  runs,
  seed,
  hypervisor,
  cache,
  testSlot,
  kinds,
  ...options
}: Options): Promise<boolean> {
  const begun = performance.now();
  const say = (line: string) => {
    process.stdout.write(`chaos: ${Math.round((performance.now() - begun) / 1000)} s: ${line}\n`);
  };
  const isReal = hypervisor === 'qemu';
  say(`seed ${seed}, ${hypervisor} hosts; starting a separate installation`);
  const starting = startInstallation({
    hypervisor,
    leaseMs: 2_000,
    testSlot,
    ownDisk: process.getuid?.() === 0,
    ...(isReal && { cacheDirectory: path.resolve(cache) }),
  });
  // Also while it starts: its processes would outlive this one.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      void starting
        .then((site) => site.stop())
        .catch(() => undefined)
        .finally(() => process.exit(130));
    });
  }
  const site = await starting;
  let isGood = false;
  try {
    const random = createRandom(seed);
    // An emulated guest on a busy node takes minutes to boot, and a rollback boots twice.
    const patienceMs = isReal ? 2_400_000 : 240_000;
    const choices = random.branch('apis');
    const failures: string[] = [];
    const platform = createPlatform(site, {
      choose: () => choices.pick(site.apiPorts),
      patienceMs,
      reportViolation: (violation) => failures.push(violation),
    });
    const drilled = await drill(site, platform, {
      // One operation reaches all points of its kind in turn; more at once would only boot more VMs.
      width: isReal ? 1 : 4,
      patienceMs,
      report: say,
      ...(kinds && { kinds }),
    });
    say(`every step of every kind: ${drilled.kills} kills, ${drilled.violations.length} violations`);
    const possible = possibleDisasters(site, options.disasters, say);
    const strikes = deal(possible, Math.ceil(runs / runsPerDisaster), random.branch('disasters'));
    const { kills, tally, violations } =
      drilled.violations.length === 0
        ? await runRandomKills(site, {
            ...{ random, lanes: isReal ? 2 : 4, patienceMs, strikes, report: say },
            kills: Math.max(0, runs - drilled.kills),
          })
        : { kills: 0, tally: {}, violations: [] };
    say(`${drilled.kills + kills} kills in all; other events:`);
    for (const [what, count] of Object.entries(tally).sort()) say(`  ${what}: ${count}`);
    const all = [...drilled.violations, ...failures, ...violations];
    if (all.length === 0) all.push(...neverStruck(possible, strikes, tally));
    for (const violation of all) say(`VIOLATION: ${violation}`);
    isGood = all.length === 0;
    say(
      isGood
        ? 'everything worked as promised'
        : `seed ${seed} failed: repeat it with the same options; the output of the processes is in ${site.logFile}`,
    );
  } finally {
    await site.stop({ keep: !isGood });
  }
  return isGood;
}

try {
  program.parse();
  process.exitCode = (await run(program.opts<Options>())) ? 0 : 1;
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : 2;
  } else {
    process.stderr.write(
      `chaos: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
    );
    process.exitCode = 1;
  }
}
