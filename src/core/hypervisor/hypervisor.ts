import type { Guest } from './guest.ts';
import type { Integrity } from './integrity.ts';
import type { Lifecycle } from './lifecycle.ts';
import type { Metering } from './metering.ts';
import type { Network } from './network.ts';
import type { Power } from './power.ts';
import type { Templates } from './templates.ts';

/**
 * A hypervisor. Every method is safe to run twice, and after a kill in the middle of an earlier run: it
 * measures what is there, does what is missing, and verifies. None waits for a slow guest: where the guest
 * is not there yet the answer is `false`, and the caller asks again later.
 *
 * Failures are {@link HypervisorError}s; what QEMU or a tool printed is in the message.
 */
export interface Hypervisor extends Lifecycle, Power, Guest, Network, Integrity, Templates, Metering {
  readonly name: 'qemu' | 'simulated';

  /** Version (semantic versioning 2.0) of the installed image, from which new hosts are made. */
  readonly imageVersion: string;

  /** Makes ready what the driver needs before any host (firewall table, templates in memory), and adopts nothing. */
  open(): Promise<void>;

  /** Lets go of what the driver holds in this process. Hosts go on running. */
  close(): Promise<void>;

  /**
   * Runs an act while nobody else acts on the host, in this process or another: each method below that acts on
   * a host is such an act of its own, and within `act` part of it. A holder that shows no sign of life for a
   * lease is ended first, process and all, so that it can't go on later with what it was at.
   */
  withHostLock<T>(hostId: string, act: () => Promise<T>): Promise<T>;
}
