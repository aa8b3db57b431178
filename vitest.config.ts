import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

/** Without virtual machines (no root, or not Debian) the rest of the tests still says a lot. */
const simulated = process.env['BERTH_HYPERVISOR'] === 'simulated';

/** What a guest gets of the machine is held against what it got before: nothing else may run meanwhile. */
const measuring = ['test/isolation/bandwidth.vm.test.ts', 'test/isolation/jail.vm.test.ts'];

const common = {
  // A run that found no test, or an .only left behind, is a failure, never a pass.
  passWithNoTests: false,
  allowOnly: false,
  testTimeout: 120_000,
  hookTimeout: 300_000,
};

export default defineConfig({
  test: {
    ...common,
    globalSetup: ['test/support/postgres.ts'],
    projects: [
      {
        test: {
          ...common,
          name: 'fast',
          include: ['test/**/*.test.ts'],
          exclude: ['test/**/*.vm.test.ts'],
          // Most of them wait, for Postgres or another process: more at once than there are cores.
          maxWorkers: availableParallelism() + 1,
        },
      },
      ...(simulated
        ? []
        : [
            {
              test: {
                ...common,
                name: 'virtual machines',
                include: ['test/**/*.vm.test.ts'],
                exclude: measuring,
                globalSetup: ['test/support/vm-setup.ts'],
                // A guest is emulated by one core; test/support/test-slot.ts keeps the files apart.
                maxWorkers: 2,
                sequence: { groupOrder: 1 },
              },
            },
            {
              test: {
                ...common,
                name: 'virtual machines, measured',
                include: measuring,
                globalSetup: ['test/support/vm-setup.ts'],
                fileParallelism: false,
                sequence: { groupOrder: 2 },
              },
            },
          ]),
    ],
  },
});
