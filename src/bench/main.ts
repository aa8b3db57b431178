import { Command, CommanderError, InvalidArgumentError } from 'commander';
import path from 'node:path';
import { probeKvm } from '../hypervisors/qemu/kvm.ts';
import { createProgress } from '../setup/progress.ts';
import { provisionSuite } from './provision.ts';
import { describeMachine, publish } from './report.ts';

function atLeastFive(text: string): number {
  const runs = Number(text);
  if (!Number.isInteger(runs) || runs < 5 || runs > 1000) {
    throw new InvalidArgumentError('It must be a whole number from 5 to 1000.');
  }
  return runs;
}

const program = new Command('bench')
  .description('Measures Berth on this machine, each figure beside what it is compared with, in one run.')
  .exitOverride();

program
  .command('provision')
  .description('cold boot against restore, memory of a running host, time until an unbind has cut')
  .option('--runs <number>', 'creates of each kind', atLeastFive, 5)
  .option('--json <file>', 'write the figures there')
  .option('--cache <directory>', 'where guest image and templates are kept', '/var/cache/berth-bench')
  .action(async (options: { runs: number; json?: string; cache: string }) => {
    const progress = createProgress(process.stderr);
    const figures = await provisionSuite(
      { runs: options.runs, cacheDirectory: path.resolve(options.cache) },
      (line) => {
        progress.show(line);
      },
    ).finally(() => {
      progress.end();
    });
    const date = new Date().toISOString();
    const { accelerator } = await probeKvm(path.join(options.cache, 'kvm.json'));
    const machine = await describeMachine(accelerator);
    await publish({ suite: 'provision', machine, date, figures }, options.json);
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
