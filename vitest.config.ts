import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

/** Without root or Debian there are no VMs; the unit project runs anyway. */
const simulated = process.env['BERTH_HYPERVISOR'] === 'simulated';

/** These measure the node's resources that a guest gets, so nothing else may run at the same time. */
const measuring = ['test/isolation/bandwidth.vm.test.ts', 'test/isolation/jail.vm.test.ts'];

const common = {
  // A run without tests, and a forgotten `.only`, fail.
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
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/**/*.vm.test.ts'],
          // Most tests wait for Postgres or another process, so more workers than cores.
          maxWorkers: availableParallelism() + 1,
        },
      },
      ...(simulated
        ? []
        : [
            {
              test: {
                ...common,
                name: 'vm',
                include: ['test/**/*.vm.test.ts'],
                exclude: measuring,
                globalSetup: ['test/support/vm-setup.ts'],
                // An emulated guest takes one core; test/support/test-slot.ts keeps the files apart.
                maxWorkers: 2,
                sequence: { groupOrder: 1 },
              },
            },
            {
              test: {
                ...common,
                name: 'vm-measured',
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
