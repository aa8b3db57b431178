import { expect, it } from 'vitest';
import { HypervisorError } from '../../src/core/hypervisor/hypervisor-error.ts';
import { runTool } from '../../src/hypervisors/run-tool.ts';

it('tools: what a tool prints is in the message for operators, and not in the summary for platforms', async () => {
  // Fails without the summary: it is the message.
  const error = await runTool('sh', ['-c', 'echo /var/lib/secret >&2; exit 3']).catch((one: unknown) => one);
  expect(error).toBeInstanceOf(HypervisorError);
  expect((error as HypervisorError).message).toBe('sh failed (exit code 3): /var/lib/secret');
  expect((error as HypervisorError).summary).toBe('sh failed (exit code 3)');
});
