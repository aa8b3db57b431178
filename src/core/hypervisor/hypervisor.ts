import type { Capabilities } from './capabilities.ts';
import type { Guest } from './guest.ts';
import type { Images } from './images.ts';
import type { Integrity } from './integrity.ts';
import type { Lifecycle } from './lifecycle.ts';
import type { Metering } from './metering.ts';
import type { Network } from './network.ts';
import type { Power } from './power.ts';
import type { RunState } from './run-state.ts';
import type { Templates } from './templates.ts';

/**
 * What a driver implements. `docs/drivers.md` is the guide for authors; `test/contract/` is the suite that every
 * driver passes. Rules for all methods:
 *
 * - Idempotent, also after a kill in the middle of an earlier call: measure what exists, do what is missing, verify.
 * - State is found on the hypervisor, never remembered: another driver object over the same state continues.
 * - No method waits for a slow guest: `false` means "not yet, ask again later".
 * - A failure is a {@link HypervisorError} and leaves the host in a state that the next call can deal with.
 */
export interface Driver
  extends Lifecycle, Power, Guest, Network, Integrity, Images, Templates, Metering, RunState {
  readonly name: 'qemu' | 'simulated';

  readonly capabilities: Capabilities;

  /** Prepares what the driver needs before any host (such as firewall tables). Running hosts are not disturbed. */
  open(): Promise<void>;

  /** Releases what the driver has open in this process. Hosts keep running. */
  close(): Promise<void>;
}

/** A driver whose hosts are locked: what operations and controllers work with. */
export interface Hypervisor extends Driver {
  /**
   * Runs an act while nothing else acts on the host, in this process or another. Each method that changes a host
   * takes this lock itself; calls within `act` belong to it and take no second lock. A lock holder that shows no sign
   * of life for the length of a lease is killed before the lock passes on, so that it can't resume stale work.
   */
  withHostLock<T>(hostId: string, act: () => Promise<T>): Promise<T>;
}
