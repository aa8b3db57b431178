import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { probeKvm } from '../../src/hypervisors/qemu/node/kvm.ts';
import { projectDirectory } from '../../src/lib/project-directory.ts';
import { createProgress } from '../../src/lib/progress.ts';
import { apiSuite } from './api/suite.ts';
import { attackSuite } from './attack/suite.ts';
import { densitySuite } from './density/suite.ts';
import { gatewaySuite } from './gateway/suite.ts';
import { isolationFigures } from './provision/isolation.ts';
import { provisionSuite } from './provision/suite.ts';
import { resizeSuite } from './resize/suite.ts';
import { writeReport } from './report/write-report.ts';
import { describeNode, describeNodeWithQemu, type Figure, publish, save } from './lib/figures.ts';

function atLeastFive(text: string): number {
  const runs = Number(text);
  if (!Number.isInteger(runs) || runs < 5 || runs > 1000) {
    throw new InvalidArgumentError('It must be a whole number from 5 to 1000.');
  }
  return runs;
}

function hosts(text: string): number {
  const count = Number(text);
  if (!Number.isInteger(count) || count < 1 || count > 900) {
    throw new InvalidArgumentError('It must be a whole number from 1 to 900.');
  }
  return count;
}

function mebibytes(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 512 || value > 1_048_576) {
    throw new InvalidArgumentError('It must be a whole number of MiB from 512 to 1048576.');
  }
  return value;
}

function seconds(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > 600) {
    throw new InvalidArgumentError('It must be a whole number from 1 to 600.');
  }
  return value;
}

/** setup/run unpacks Debian's Docker engine there. */
const engineDirectory = path.join(projectDirectory(), 'node_modules/.cache/berth/docker-engine/engine');

async function provisionAndIsolation(
  options: { runs: number; sustained: boolean; cacheDirectory: string },
  progress: (line: string) => void,
): Promise<readonly Figure[]> {
  return [
    ...(await provisionSuite({ ...options, engineDirectory }, progress)),
    ...(await isolationFigures(options, progress)),
  ];
}

/** Measures with progress on standard error, and publishes the figures with a description of the node and its QEMU. */
async function measureWithVms(
  suite: string,
  options: { json?: string; cache: string },
  measure: (cacheDirectory: string, progress: (line: string) => void) => Promise<readonly Figure[]>,
): Promise<void> {
  const progress = createProgress(process.stderr);
  const figures = await measure(path.resolve(options.cache), (line) => {
    progress.show(line);
  }).finally(() => {
    progress.end();
  });
  const date = new Date().toISOString();
  const { accelerator } = await probeKvm(path.join(options.cache, 'kvm.json'));
  const machine = await describeNodeWithQemu(accelerator);
  await publish({ suite, machine, date, figures }, options.json);
}

/** Options of every suite that starts VMs. */
const withFiles = (command: Command) =>
  command
    .option('--json <file>', 'save the figures to this file')
    .option(
      '--cache <directory>',
      'directory that caches the guest image and templates',
      '/var/cache/berth-bench',
    );

const program = new Command('bench')
  .description(
    'Measures Berth on this node, together with the alternatives that it is compared with, in one run.',
  )
  .exitOverride();

withFiles(
  program
    .command('provision')
    .description(
      'cold boot, template and pool; concurrent and sustained creates; memory of hosts; deletes, unbinds, isolation',
    )
    .option('--runs <number>', 'creates of each kind', atLeastFive, 5)
    .option('--no-sustained', 'skip the creates at the pace of the refill, which take half an hour'),
).action((options: { runs: number; sustained: boolean; json?: string; cache: string }) =>
  measureWithVms('provision', options, (cacheDirectory, progress) =>
    provisionAndIsolation({ ...options, cacheDirectory }, progress),
  ),
);

withFiles(
  program
    .command('density')
    .description(
      'many hosts: their cost running and paused, and how fast they wake; then more, until the broker refuses one',
    )
    .option('--hosts <number>', 'number of hosts at the same time', hosts, 100)
    .option(
      '--most <number>',
      'maximum number of paused hosts, if the broker refuses none earlier',
      hosts,
      900,
    )
    .option(
      '--reserve-mib <number>',
      'memory of the node that hosts may not use, for this bench and Postgres; with more, the node is full sooner',
      mebibytes,
      2_048,
    )
    .option('--no-containers', 'skip the hundred containers, which take most of the time'),
).action(
  async (options: {
    hosts: number;
    most: number;
    reserveMib: number;
    containers: boolean;
    json?: string;
    cache: string;
  }) => {
    await mkdir(options.cache, { recursive: true, mode: 0o755 });
    const { accelerator } = await probeKvm(path.join(options.cache, 'kvm.json'));
    const machine = await describeNodeWithQemu(accelerator);
    const date = new Date().toISOString();
    const reportOf = (figures: readonly Figure[]) => ({ suite: 'density', machine, date, figures });
    const progress = createProgress(process.stderr);
    const figures = await densitySuite(
      { ...options, cacheDirectory: path.resolve(options.cache) },
      (line) => {
        progress.show(line);
      },
      // The suite may take an hour: an interrupted run leaves its figures.
      (soFar) => save(reportOf(soFar), options.json),
    ).finally(() => {
      progress.end();
    });
    await publish(reportOf(figures), options.json);
  },
);

withFiles(
  program
    .command('gateway')
    .description('throughput, latency and revocation of the gateway, compared with HAProxy and no gateway')
    .option('--guests', 'measure the engine of a real host as well', false),
).action((options: { guests: boolean; json?: string; cache: string }) =>
  measureWithVms('gateway', options, (cacheDirectory, progress) =>
    gatewaySuite({ guests: options.guests, cacheDirectory }, progress),
  ),
);

program
  .command('api')
  .description(
    'the OSB API on one core, with simulated hosts: latency, throughput, and the cost of 100,000 instances',
  )
  .option('--seconds <number>', 'duration of each throughput measurement', seconds, 10)
  .option('--json <file>', 'save the figures to this file')
  .option('--profile <directory>', 'save CPU profiles of the api processes to this directory')
  .action(async (options: { seconds: number; json?: string; profile?: string }) => {
    const progress = createProgress(process.stderr);
    const figures = await apiSuite(
      { seconds: options.seconds, profileDirectory: options.profile },
      (line) => {
        progress.show(line);
      },
    ).finally(() => {
      progress.end();
    });
    const date = new Date().toISOString();
    await publish({ suite: 'api', machine: describeNode(), date, figures }, options.json);
  });

withFiles(
  program
    .command('attack')
    .description(
      'one tenant at the limits of connections, handshakes, boots, disk writes and flows: pings and creates of another one',
    )
    .option('--simulated', 'with simulated hosts', false),
).action((options: { simulated: boolean; json?: string; cache: string }) =>
  measureWithVms('attack', options, (cacheDirectory, progress) =>
    attackSuite({ simulated: options.simulated, cacheDirectory }, progress),
  ),
);

withFiles(
  program
    .command('resize')
    .description(
      'hosts that get larger while they run: time until docker info shows it, silence of a container, memory of the template',
    )
    .option('--runs <number>', 'hosts, each of which is updated twice', atLeastFive, 5),
).action((options: { runs: number; json?: string; cache: string }) =>
  measureWithVms('resize', options, (cacheDirectory, progress) =>
    resizeSuite({ runs: options.runs, cacheDirectory }, progress),
  ),
);

program
  .command('report')
  .description('write docs/bench.md and its plots from docs/bench/SUITE.json and docs/bench/notes.md')
  .action(async () => {
    const missing = await writeReport(path.join(projectDirectory(), 'docs'));
    process.stdout.write('docs/bench.md has been written\n');
    for (const suite of missing) process.stdout.write(`missing: docs/bench/${suite}.json\n`);
  });

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : 2;
  } else {
    process.stderr.write(
      `bench: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
    );
    process.exitCode = 1;
  }
}
