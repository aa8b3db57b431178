/**
 * The worker process as production runs it, except for steps that can be told to kill it: `worker.js FOLDER LEASE`.
 * FOLDER holds the faults (faults.ts), LEASE is the length of the leases in milliseconds.
 */
import { readSettings } from '../../src/config/settings.ts';
import { workflows } from '../../src/operations/workflows.ts';
import { createLogger } from '../../src/processes/logger.ts';
import { startWorker } from '../../src/processes/worker.ts';
import { withFaults } from './faults.ts';

const [, , faultDirectory = '', leaseMs = ''] = process.argv;
const settings = readSettings();
const worker = await startWorker(settings, createLogger('worker', settings.logLevel), {
  workflows: withFaults(workflows, faultDirectory),
  leaseMs: Number(leaseMs),
});
process.send?.({ ready: worker.announcement });
// The site tells it to stop, or has been killed itself.
for (const event of ['SIGTERM', 'disconnect'] as const) {
  process.once(event, () => {
    void worker.stop().then(() => process.exit());
  });
}
