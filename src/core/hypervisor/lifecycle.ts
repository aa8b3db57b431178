import type { HostSpec } from './host-spec.ts';

/** How a VM came to run: taken from the pool, restored from a template, or booted cold. */
export type StartedFrom = 'pool' | 'template' | 'boot';

/** A host as found on the hypervisor, not as remembered. */
export interface ObservedHost {
  readonly hostId: string;
  /**
   * `running`: the VM runs. `paused`: the VM exists and its CPUs are stopped (a parked host too). `suspended`: its
   * memory is on disk. `stopped`: its disk, network or an unfinished part of them exists, but no VM. `unreadable`: its
   * own record can't be read, so nothing is known but what this object says; its VM may run. It is neither started nor
   * destroyed without an operator.
   */
  readonly state: 'running' | 'paused' | 'suspended' | 'stopped' | 'unreadable';
  /** Id of the instance that the host belongs to, by the host's own record; undefined if it names none. */
  readonly owner: string | undefined;
  /** Undefined if neither a record nor anything else of the host tells it. */
  readonly slot: number | undefined;
  /** Whether its VM waits in the pool, by the host's own record. */
  readonly parked: boolean;
  /** Whether its guest may have run for a tenant: false only if the host is half made or was only ever parked. */
  readonly hasRun: boolean;
  /** When the memory that it was suspended to last turned out to be unusable (MemoryLostError); undefined: never. */
  readonly memoryLostAt?: Date | undefined;
}

/**
 * Makes, starts, stops, changes, destroys and lists hosts.
 *
 * Every method with a spec throws a {@link HostDisputedError} and changes nothing if the host's own record names another
 * owner or slot than the spec, or can't be read.
 */
export interface Lifecycle {
  /**
   * Makes the host's disk and network. No VM runs yet, and nothing can reach it. A host whose VM runs is left alone, and a
   * suspended one may keep its network, so that its connections outlast the suspension.
   * @throws HostDisputedError also if another host on the node uses the slot, or if the host has been started for
   *   somebody that its record does not name.
   */
  prepare(spec: HostSpec): Promise<void>;

  /**
   * Makes the VM run, by the first of these that applies: a running one is left alone, a parked, paused or suspended
   * one is resumed, a host that has never run is restored from the template if its plan is, and any other
   * boots cold from its own disk, also a suspended one whose memory can't be loaded. Nothing can reach the guest until {@link Network.connect}, except one that is resumed. The spec's owner is on
   * record, and survives a power cut, before the guest runs its first instruction.
   * @throws HypervisorError if the host is not prepared.
   */
  start(spec: HostSpec): Promise<void>;

  /**
   * Shuts the guest down, forcibly if it does not react, and keeps the disk. A paused or suspended host is resumed
   * first, so that what is only in its memory reaches the disk, unless its memory can't be loaded. Nothing can reach the host afterwards. Does nothing if
   * the host does not exist.
   */
  stop(hostId: string): Promise<void>;

  /**
   * Gives a stopped host the CPUs, memory, disk size and image of its spec, from its next start on. The disk keeps its
   * data; it never shrinks, and its file system grows at the next boot.
   * @throws HypervisorError if the VM runs or the image is not installed; the host is then unchanged.
   */
  reshape(spec: HostSpec): Promise<void>;

  /**
   * Adds CPUs, memory and disk to a running host until it has those of its spec; its containers and connections continue.
   * What {@link Capabilities.liveGrowth} does not name must be equal already. Limits on the node are raised first. The
   * host's own record has the new shape from then on, also if the call is killed or fails: a restart gives it the rest.
   * @returns false if the guest has not taken everything into use yet: ask again.
   * @throws HypervisorError if no VM runs, the spec is smaller in something, the VM can't grow to it, or the guest has not
   *   taken it into use within 20 s.
   */
  grow(spec: HostSpec): Promise<boolean>;

  /**
   * Whether the host has the CPUs, memory and disk of the spec, which may have a smaller disk: its VM, if there is one, paused
   * or suspended or not, and its next start.
   */
  hasShape(spec: HostSpec): Promise<boolean>;

  /**
   * Ends the VM, wipes its disk and removes everything of the host. Does nothing if the host does not exist.
   * @param host a spec: only if the host's own record can be read and names the spec's owner. An id: for any owner,
   *   which an operator decides.
   * @throws HostDisputedError if the host is not that owner's; nothing was changed.
   */
  destroy(host: HostSpec | string): Promise<void>;

  /**
   * Records the owner of a host that a former version of Berth has started, which recorded none. Does nothing if the
   * host has an owner, has never been started, or does not exist.
   * @throws HostDisputedError if it has another owner.
   */
  recordOwner(spec: HostSpec): Promise<void>;

  /** Every host that exists, half-made ones and hosts that Postgres does not know included. */
  list(): Promise<readonly ObservedHost[]>;

  /**
   * How the host's VM came to run, from the host's own record.
   * @throws HypervisorError if it has never run.
   */
  startedFrom(hostId: string): Promise<StartedFrom>;

  /** Version of the image that the host boots, from the host's own record. */
  imageVersionOf(hostId: string): Promise<string>;
}
