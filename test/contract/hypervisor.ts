import { afterAll, afterEach, beforeAll, describe } from 'vitest';
import { describeCapabilities } from './capabilities.ts';
import { describeGrowth } from './growth.ts';
import { describeGuest } from './guest.ts';
import type { HypervisorHarness, Patience } from './harness.ts';
import { describeIntegrity } from './integrity.ts';
import { describeLifecycle } from './lifecycle.ts';
import { describeOwners } from './owners.ts';
import { describePower } from './power.ts';
import { describeRecovery } from './recovery.ts';
import { createSuite } from './suite.ts';
import { describeTemplates } from './templates.ts';

/** The conformance suite: the contract of src/core/hypervisor, which every driver fulfils. See docs/drivers.md. */
export function describeHypervisor(
  name: string,
  patience: Patience,
  makeHarness: () => Promise<HypervisorHarness>,
): void {
  // Up to two guests one after the other, and as much again for everything else in a test.
  const timeout = 6 * patience.bootMs + 60_000;

  describe(`${name} driver`, { timeout }, () => {
    const suite = createSuite(patience, makeHarness);
    beforeAll(() => suite.open(), patience.templateMs);
    afterEach(() => suite.destroyHosts(), timeout);
    afterAll(() => suite.close(), timeout);

    describeLifecycle(suite);
    describeGrowth(suite);
    describeOwners(suite);
    describePower(suite);
    describeGuest(suite);
    describeTemplates(suite);
    describeIntegrity(suite);
    describeRecovery(suite);
    describeCapabilities(suite);
  });
}
