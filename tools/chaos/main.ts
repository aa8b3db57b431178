import { Command, CommanderError, InvalidArgumentError } from 'commander';
import path from 'node:path';
import type { OperationKind } from '../../src/core/model/operation.ts';
import { drill, operationKinds } from './drill.ts';
import { createPlatform } from './platform.ts';
import { createRandom } from './random.ts';
import { wreak } from './run.ts';
import { startSite } from './site.ts';

function positive(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1)
    throw new InvalidArgumentError('It must be a whole number from 1 on.');
  return value;
}

function hypervisorOf(text: string): 'qemu' | 'simulated' {
  if (text !== 'qemu' && text !== 'simulated')
    throw new InvalidArgumentError('It must be qemu or simulated.');
  return text;
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
  readonly seat: number;
  readonly kinds?: readonly OperationKind[];
}

const program = new Command('chaos')
  .description(
    'Kills and suspends the processes of a broker of its own while tenants come and go, and says what was not as promised. First of all a worker is killed before, in and after every step of every kind of operation.',
  )
  .option('--runs <number>', 'kills to reach', positive, 300)
  .option('--seed <number>', 'what is done follows from it, as far as timing allows', positive, 1)
  .option('--hypervisor <name>', 'qemu (real hosts) or simulated', hypervisorOf, 'simulated')
  .option('--cache <directory>', 'where guest image and templates are kept', '/var/cache/berth-chaos')
  .option('--seat <number>', 'keeps runs side by side apart: 1 to 9', positive, 9)
  .option(
    '--kinds <list>',
    'kinds of operation whose every step is killed, separated by commas; all',
    kindsOf,
  )
  .exitOverride();

async function run({ runs, seed, hypervisor, cache, seat, kinds }: Options): Promise<boolean> {
  const begun = performance.now();
  const say = (line: string) => {
    process.stdout.write(`chaos: ${Math.round((performance.now() - begun) / 1000)} s: ${line}\n`);
  };
  const isReal = hypervisor === 'qemu';
  say(`seed ${seed}, ${hypervisor} hosts; a site of its own is started`);
  const site = await startSite({
    hypervisor,
    leaseMs: 2_000,
    seat,
    ...(isReal && { cacheDirectory: path.resolve(cache) }),
  });
  let isGood = false;
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      void site.stop().finally(() => process.exit(130));
    });
  }
  try {
    const random = createRandom(seed);
    // A guest that is emulated on a machine with other work takes minutes to boot, and an undo boots twice.
    const patienceMs = isReal ? 2_400_000 : 240_000;
    const choices = random.branch('apis');
    const failures: string[] = [];
    const platform = createPlatform(site, {
      choose: () => choices.pick(site.apiPorts),
      patienceMs,
      complain: (violation) => failures.push(violation),
    });
    const drilled = await drill(site, platform, {
      // One operation meets all the points of its kind in a row; more at once would only boot more machines.
      width: isReal ? 1 : 4,
      patienceMs,
      report: say,
      ...(kinds && { kinds }),
    });
    say(`every step of every kind: ${drilled.kills} kills, ${drilled.violations.length} violations`);
    const left = runs - drilled.kills;
    const { kills, tally, violations } =
      drilled.violations.length === 0 && left > 0
        ? await wreak(site, { kills: left, random, lanes: isReal ? 2 : 4, patienceMs, report: say })
        : { kills: 0, tally: {}, violations: [] };
    say(`${drilled.kills + kills} kills in all; besides:`);
    for (const [what, count] of Object.entries(tally).sort()) say(`  ${what}: ${count}`);
    const all = [...drilled.violations, ...failures, ...violations];
    for (const violation of all) say(`NOT AS PROMISED: ${violation}`);
    isGood = all.length === 0;
    say(isGood ? 'everything was as promised' : `what the processes said is in ${site.logFile}`);
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
