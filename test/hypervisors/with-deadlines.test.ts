import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { Driver } from '../../src/core/hypervisor/hypervisor.ts';
import { runTool } from '../../src/hypervisors/run-tool.ts';
import { createSimulatedHypervisor } from '../../src/hypervisors/simulated/simulated.ts';
import { withDeadlines } from '../../src/hypervisors/with-deadlines.ts';

let stateDirectory: string;
let driver: Driver;
beforeEach(async () => {
  stateDirectory = await mkdtemp(path.join(tmpdir(), 'berth-deadlines-'));
  driver = createSimulatedHypervisor({ stateDirectory });
});
afterEach(async () => {
  await driver.close();
  await rm(stateDirectory, { recursive: true });
});

// Fails without `requireNotAbandoned` in run-tool.ts: the tool ran after the lock had passed on.
it('withDeadlines: a method that hangs is abandoned, and can begin nothing once it resumes', async () => {
  let resume: () => void = () => undefined;
  const hanging = new Promise<void>((resolve) => (resume = resolve));
  let afterwards: Promise<unknown> = Promise.resolve();
  const bounded = withDeadlines(
    {
      ...driver,
      async stop() {
        await hanging;
        afterwards = runTool('true', []);
        afterwards.catch(() => undefined);
      },
    },
    { longMs: 50, shortMs: 50 },
  );
  await expect(bounded.stop('some-host')).rejects.toThrow(/stop of host some-host did not end within 0.05 s/);
  resume();
  await new Promise((resolve) => setImmediate(resolve));
  await expect(afterwards).rejects.toThrow(/abandoned/);
});

it('run tool: settles although a process outside its group keeps its output open', async () => {
  // Fails if it waits for the end of the output: setsid(1) leaves the group that is killed.
  const begun = runTool('sh', ['-c', 'setsid sleep 8 & sleep 8'], { timeoutMs: 100 });
  await expect(begun).rejects.toThrow(/took longer than 0.1 s/);
}, 15_000);
