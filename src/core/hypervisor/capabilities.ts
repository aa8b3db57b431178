import type { Egress } from './host-spec.ts';

/**
 * What a driver can do beyond the basics: prepare, start, connect, stop, destroy and find a host again. Fixed for the
 * life of the driver object. What a driver lacks is refused when the worker starts (require-capabilities.ts);
 * if the method is called all the same, it throws {@link HypervisorError} and changes nothing.
 */
export interface Capabilities {
  /** {@link Power.pause}. */
  readonly pause: boolean;
  /** {@link Power.suspend}. */
  readonly suspend: boolean;
  /** {@link Templates.makeTemplate}; without it {@link Templates.hasTemplate} is always false. */
  readonly templates: boolean;
  /** {@link Templates.park}; needs `templates`. */
  readonly park: boolean;
  /** Kinds of egress that {@link Network.connect} enforces. */
  readonly egress: readonly Egress['kind'][];
  /** Whether {@link Network.connect} publishes ports; without it only specs with a count of 0 are accepted. */
  readonly publishedPorts: boolean;
  /** Whether {@link Lifecycle.reshape} makes a disk larger. */
  readonly diskGrowth: boolean;
  /** What {@link Lifecycle.grow} adds to a running host; the rest needs a restart ({@link Lifecycle.reshape}). */
  readonly liveGrowth: { readonly vcpus: boolean; readonly memory: boolean; readonly disk: boolean };
  /** {@link Power.traffic}; without it no host can be found idle. */
  readonly traffic: boolean;
  /** Whether {@link Lifecycle.reshape} gives an existing host another image. */
  readonly imageUpgrade: boolean;
}

export const allCapabilities: Capabilities = {
  pause: true,
  suspend: true,
  templates: true,
  park: true,
  egress: ['internet', 'networks', 'none'],
  publishedPorts: true,
  diskGrowth: true,
  liveGrowth: { vcpus: true, memory: true, disk: true },
  traffic: true,
  imageUpgrade: true,
};
