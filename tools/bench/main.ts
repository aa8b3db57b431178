import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { probeKvm } from '../../src/hypervisors/qemu/node/kvm.ts';
import { projectDirectory } from '../../src/lib/project-directory.ts';
import { createProgress } from '../../src/lib/progress.ts';
import { apiSuite } from './api/suite.ts';
import { densitySuite } from './density/suite.ts';
import { gatewaySuite } from './gateway/suite.ts';
import { isolationFigures } from './provision/isolation.ts';
import { provisionSuite } from './provision/suite.ts';
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

/** Where setup/run unpacks Debian's Docker engine. */
const engineDirectory = path.join(projectDirectory(), 'node_modules/.cache/berth/docker-engine/engine');

async function provisionAndIsolation(
  options: { runs: number; cacheDirectory: string },
  progress: (line: string) => void,
): Promise<readonly Figure[]> {
  return [
    ...(await provisionSuite({ ...options, engineDirectory }, progress)),
    ...(await isolationFigures(options, progress)),
  ];
}

const program = new Command('bench')
  .description('Measures Berth on this machine, each figure beside what it is compared with, in one run.')
  .exitOverride();

program
  .command('provision')
  .description(
    'cold boot against template and pool, creates at once and sustained, memory of hosts, deletes, unbinds, isolation',
  )
  .option('--runs <number>', 'creates of each kind', atLeastFive, 5)
  .option('--json <file>', 'write the figures there')
  .option('--cache <directory>', 'where guest image and templates are kept', '/var/cache/berth-bench')
  .action(async (options: { runs: number; json?: string; cache: string }) => {
    const progress = createProgress(process.stderr);
    const figures = await provisionAndIsolation(
      { runs: options.runs, cacheDirectory: path.resolve(options.cache) },
      (line) => {
        progress.show(line);
      },
    ).finally(() => {
      progress.end();
    });
    const date = new Date().toISOString();
    const { accelerator } = await probeKvm(path.join(options.cache, 'kvm.json'));
    const machine = await describeNodeWithQemu(accelerator);
    await publish({ suite: 'provision', machine, date, figures }, options.json);
  });

program
  .command('density')
  .description(
    'hosts side by side: what they cost running and paused, and how fast they wake; then until the broker refuses one',
  )
  .option('--hosts <number>', 'hosts side by side', hosts, 100)
  .option('--most <number>', 'paused hosts in the end, if the broker does not refuse one before', hosts, 900)
  .option(
    '--reserve-mib <number>',
    'memory of the machine that hosts may not take: this bench and Postgres live there; more, and it is full sooner',
    mebibytes,
    2_048,
  )
  .option('--no-containers', 'leave out the hundred containers, which take most of the time')
  .option('--json <file>', 'write the figures there')
  .option('--cache <directory>', 'where guest image and templates are kept', '/var/cache/berth-bench')
  .action(
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
        // It may be an hour: what was measured by then is there also where it is interrupted.
        (soFar) => save(reportOf(soFar), options.json),
      ).finally(() => {
        progress.end();
      });
      await publish(reportOf(figures), options.json);
    },
  );

program
  .command('gateway')
  .description('throughput, latency and cuts of the gateway, beside HAProxy and no gateway at all')
  .option('--guests', 'also with the engine of a real host', false)
  .option('--json <file>', 'write the figures there')
  .option('--cache <directory>', 'where guest image and templates are kept', '/var/cache/berth-bench')
  .action(async (options: { guests: boolean; json?: string; cache: string }) => {
    const progress = createProgress(process.stderr);
    const figures = await gatewaySuite(
      { guests: options.guests, cacheDirectory: path.resolve(options.cache) },
      (line) => {
        progress.show(line);
      },
    ).finally(() => {
      progress.end();
    });
    const date = new Date().toISOString();
    const { accelerator } = await probeKvm(path.join(options.cache, 'kvm.json'));
    const machine = await describeNodeWithQemu(accelerator);
    await publish({ suite: 'gateway', machine, date, figures }, options.json);
  });

program
  .command('api')
  .description(
    'the OSB API on one core, with simulated hosts: latency, throughput, and the cost of 100,000 instances',
  )
  .option('--seconds <number>', 'how long each throughput is measured', seconds, 10)
  .option('--json <file>', 'write the figures there')
  .option('--profile <directory>', 'write CPU profiles of the apis there')
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

program
  .command('report')
  .description('write docs/bench.md and its plots out of docs/bench/SUITE.json')
  .action(async () => {
    const missing = await writeReport(path.join(projectDirectory(), 'docs'));
    process.stdout.write('docs/bench.md is written\n');
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
