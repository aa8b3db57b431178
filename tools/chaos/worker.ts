/**
 * The production worker, except that faults can kill it at its steps: `worker.js FOLDER LEASE`. FOLDER contains the
 * faults (faults.ts); LEASE is the length of the leases in milliseconds.
 */
import { readSettings } from '../../src/config/settings.ts';
import { workflows } from '../../src/operations/workflows.ts';
import { createLogger } from '../../src/processes/logger.ts';
import { startWorker } from '../../src/processes/worker.ts';
import { withWorkflowFaults } from './faults.ts';

const [, , faultDirectory = '', leaseMs = ''] = process.argv;
const settings = readSettings();
const worker = await startWorker(settings, createLogger('worker', settings.logLevel), {
  workflows: withWorkflowFaults(workflows, faultDirectory),
  leaseMs: Number(leaseMs),
});
process.send?.({ ready: worker.announcement });
// The drill stops it, or was killed itself.
for (const event of ['SIGTERM', 'disconnect'] as const) {
  process.once(event, () => {
    void worker.stop().then(() => process.exit());
  });
}
