import type { Capabilities } from '../core/hypervisor/capabilities.ts';
import type { Driver } from '../core/hypervisor/hypervisor.ts';
import type { DiskSpace, Halt } from '../core/hypervisor/run-state.ts';
import type { Drift } from '../core/hypervisor/integrity.ts';
import { decorateHostMethods, hostIdOf, type HostMethod } from './host-methods.ts';

/** Failures on purpose, for tests of what is built on a driver. */
export interface Faults {
  /** Runs before each call. If it throws, the call fails; while it waits, the call hangs. */
  before(method: HostMethod, hostId: string): void | Promise<void>;
  /** What `verify` finds, in place of what the driver found. */
  drift?(hostId: string): readonly Drift[];
  /** What `haltOf` finds, in place of what the driver found. */
  haltOf?(hostId: string): Halt | undefined;
  /** What `diskSpace` finds, in place of what the driver found. */
  diskSpace?(): Promise<DiskSpace> | DiskSpace;
  /** What `runningContainers` counts, in place of what the driver counted. */
  runningContainers?(hostId: string): number;
  /** Whether the guest takes what `grow` adds into use; only the simulated driver asks. If it throws, `grow` fails there. */
  takesIntoUse?(part: keyof Capabilities['liveGrowth'], hostId: string): boolean;
}

/**
 * The driver, with these faults. Goes inside {@link withHostLocks}, so that a call that a fault delays or fails has
 * the host's lock, as a slow or failing driver has.
 */
export function withFaults(driver: Driver, faults: Faults | undefined): Driver {
  if (faults === undefined) return driver;
  const answers: Driver = {
    ...driver,
    async verify(hostId) {
      const found = await driver.verify(hostId);
      return faults.drift?.(hostId) ?? found;
    },
    async haltOf(hostId) {
      return faults.haltOf?.(hostId) ?? (await driver.haltOf(hostId));
    },
    async diskSpace() {
      return (await faults.diskSpace?.()) ?? (await driver.diskSpace());
    },
    async runningContainers(spec) {
      const count = await driver.runningContainers(spec);
      return faults.runningContainers?.(spec.hostId) ?? count;
    },
  };
  return decorateHostMethods(answers, ['act', 'question'], async (method, target, call) => {
    await faults.before(method, hostIdOf(target));
    return call();
  });
}
