/**
 * The port behind which hosts are made. A driver is a function that returns a {@link Hypervisor};
 * `test/contract/` holds the one suite that every driver passes.
 */

/** What a plan gives a host. */
export interface HostShape {
  /** Virtual CPUs. */
  readonly vcpus: number;
  /** Guest memory in MiB. */
  readonly memoryMib: number;
  /** Size of the guest's data disk in GiB. */
  readonly diskGib: number;
}

/** Where a host's guest may open connections to. Everything not named is refused (design: the network). */
export type Egress =
  | { readonly kind: 'internet' }
  | { readonly kind: 'none' }
  | {
      readonly kind: 'networks';
      readonly cidrs: readonly string[];
      /** A tenant's own choice out of the internet: it opens nothing that the internet would not. */
      readonly publicOnly?: true;
    };

/** A block of ports, mapped one to one from the machine to the guest, TCP and UDP. */
export interface PortBlock {
  /** First port of the block. */
  readonly first: number;
  /** Number of ports; 0 publishes none. */
  readonly count: number;
}

/** What a host's engine is told of the registries that it pulls images from. */
export interface RegistrySettings {
  /** URLs that are asked first for the images of Docker Hub. */
  readonly mirrors: readonly string[];
  /** Registries, as `host`, `host:port` or a network, whose certificates are not checked. */
  readonly insecure: readonly string[];
  /** Certificates (PEM) of authorities that may vouch for one registry, as `host` or `host:port`. */
  readonly authorities: readonly { readonly host: string; readonly certificate: string }[];
}

export const noRegistries: RegistrySettings = { mirrors: [], insecure: [], authorities: [] };

/**
 * Everything that a driver needs to know of one host. It is read from Postgres, so that a driver keeps no
 * truth of its own: the same spec always names the same machine.
 */
export interface HostSpec {
  /** UUID of the host: the name under which the driver makes it and finds it again. */
  readonly hostId: string;
  /**
   * Small number that no other living host has. A driver derives from it what must be unique on one
   * machine: addresses, interface names, user id.
   */
  readonly slot: number;
  /** Name of the plan: which template the host may be restored from. */
  readonly planName: string;
  readonly shape: HostShape;
  readonly publishedPorts: PortBlock;
  readonly egress: Egress;
  readonly registries: RegistrySettings;
  /** Version of the image that the host boots; left out: the one that it has, and where it never ran the installed one. */
  readonly imageVersion?: string;
}

/** Where a host's Docker engine listens, as seen by the gateway. */
export interface EngineAddress {
  readonly host: string;
  readonly port: number;
}

/** Behind this port of a host's own address its engine listens; it is never among the published ones. */
export const enginePort = 2375;

/** How a machine came to run: restored ahead into the pool, restored from a template, or booted cold. */
export type StartedFrom = 'pool' | 'template' | 'boot';

/** One host that exists on the hypervisor, as found there and not as remembered. */
export interface HostSeen {
  readonly hostId: string;
  /**
   * `running`: its machine runs. `paused`: it is there, and its processors stand still. `suspended`: its memory is
   * on disk. `stopped`: its disk or network exists, but no machine.
   */
  readonly state: 'running' | 'paused' | 'suspended' | 'stopped';
}

/** What goes on at a host, as seen from outside. */
export interface HostTraffic {
  /** Connections to its engine that are open. */
  readonly connections: number;
  /** Packets that were ever sent to it; whatever somebody does with the host raises it. */
  readonly packets: number;
}

/** A host's use of the machine's memory. */
export interface HostMemory {
  /** Proportional set size of the host's processes, in MiB: shared pages are divided by their users. */
  readonly pssMib: number;
}

/**
 * A hypervisor. Every method is safe to run twice, and after a kill in the middle of an earlier run: it
 * measures what is there, does what is missing, and verifies. None waits for a slow guest: where the guest
 * is not there yet the answer is `false`, and the caller asks again later.
 *
 * Failures are {@link HypervisorError}s; what QEMU or a tool printed is in the message.
 */
export interface Hypervisor {
  readonly name: 'qemu' | 'simulated';

  /** Version (semantic versioning 2.0) of the installed image, from which new hosts are made. */
  readonly imageVersion: string;

  /** Makes ready what the driver needs before any host (firewall table, templates in memory), and adopts nothing. */
  open(): Promise<void>;

  /** Lets go of what the driver holds in this process. Hosts go on running. */
  close(): Promise<void>;

  /** True where a create of this plan will be restored from a template, not booted cold. */
  hasTemplate(planName: string): Promise<boolean>;

  /**
   * Makes the template of a plan where it is missing or made from something else than what is installed.
   * @param report is told, in words for people, what is being done.
   */
  makeTemplate(plan: TemplatePlan, report: (progress: string) => void, signal: AbortSignal): Promise<void>;

  /**
   * Runs an act while nobody else acts on the host, in this process or another: each method below that acts on
   * a host is such an act of its own, and within `act` part of it. A holder that shows no sign of life for a
   * lease is ended first, process and all, so that it can't go on later with what it was at.
   */
  holdHost<T>(hostId: string, act: () => Promise<T>): Promise<T>;

  /** Makes the host's disk and network. No machine runs yet, and nothing can reach it. */
  prepare(spec: HostSpec): Promise<void>;

  /**
   * Restores a prepared host's machine from its plan's template and holds it, for the pool: its processors stand
   * still, nobody has used it, and nothing reaches it. {@link start} lets it go. Asked again, it verifies that the host still stands so, and restores
   * anew what has ended.
   * @returns false where it can't be held: there is no template, it was made from another one than the plan's
   * present one, or it was let go. Such a host is of no use to the pool.
   */
  hold(spec: HostSpec): Promise<boolean>;

  /**
   * Starts the host's machine: lets it go where it is held, restores it from the template where the host has
   * never run and there is one, resumes it where it is paused or suspended, else boots it cold from the host's own disk. A machine that runs is left alone.
   * Nothing can reach the guest until {@link connect}.
   */
  start(spec: HostSpec): Promise<void>;

  /**
   * Stops the processors of a host's machine. Nothing of it is lost: its memory and connections stay.
   * @throws HypervisorError where no machine runs.
   */
  pause(hostId: string): Promise<void>;

  /**
   * Writes the memory of a host's machine to disk and ends it. What was open to it is cut.
   * @throws HypervisorError where there is no machine, or no room on the disk; {@link resume} lets it go on then.
   */
  suspend(hostId: string): Promise<void>;

  /**
   * Lets a host go on that is paused or suspended; one that runs goes on running. Its clock is behind by the time
   * that it stood still, until {@link identify}; a suspended one must be prepared before and connected after.
   * @throws HypervisorError where there is nothing to go on with: its machine has ended.
   */
  resume(spec: HostSpec): Promise<void>;

  /** What goes on at these hosts; it costs their guests nothing. */
  traffic(specs: readonly HostSpec[]): Promise<ReadonlyMap<string, HostTraffic>>;

  /** How many containers run on a host. @throws HypervisorError where its engine does not tell. */
  runningContainers(spec: HostSpec): Promise<number>;

  /**
   * Gives the guest its own identity: reseeds its random generator, sets clock, hostname, machine-id, boot
   * id and engine id. False while the guest can't be spoken to yet.
   * @throws HypervisorError where the machine has ended.
   */
  identify(spec: HostSpec): Promise<boolean>;

  /**
   * Gives the running guest's engine its registries; containers notice nothing. A cold boot forgets them. False
   * while the engine can't be told yet.
   * @throws HypervisorError where the machine has ended.
   */
  configure(spec: HostSpec): Promise<boolean>;

  /**
   * Opens the way from the gateway to the engine and the published ports, and the guest's egress. Where that is
   * another way than before, connections that it still allows live on, and all others end.
   */
  connect(spec: HostSpec): Promise<EngineAddress>;

  /**
   * Whether the engine answers `GET /_ping`.
   * @throws HypervisorError where the machine has ended.
   */
  answers(spec: HostSpec): Promise<boolean>;

  /** How the host's running machine came to run, as it stands on record with the machine. */
  startedFrom(hostId: string): Promise<StartedFrom>;

  /** Version of the image that a host boots, as it stands on record with the machine. */
  imageVersionOf(hostId: string): Promise<string>;

  /**
   * Makes a stopped host what its spec says from its next start on: processors, memory, the image. Its disk
   * keeps what is on it: it grows where it is smaller, and its file system when it boots; it never shrinks.
   * @throws HypervisorError where the image is not installed, or the machine runs.
   */
  reshape(spec: HostSpec): Promise<void>;

  /**
   * Starts the containers again that ran when {@link stop} was last called, whatever their restart policies. One
   * that can't be started is left alone. False while some are left, or the engine does not answer.
   */
  restartContainers(hostId: string): Promise<boolean>;

  /** Stops the machine, its disk kept. Nothing reaches it afterwards. */
  stop(hostId: string): Promise<void>;

  /** Ends the host and wipes and removes everything of it. A host that does not exist is no error. */
  destroy(hostId: string): Promise<void>;

  /** Every host that exists here, whether Postgres knows it or not. */
  list(): Promise<readonly HostSeen[]>;

  /**
   * Holds the running host against what was written down when it was made: process, privileges, limits, disks,
   * devices, firewall rules, and the digests of what it was made from.
   * @returns what has been altered; nothing, where all is as it was made.
   * @throws HypervisorError where its machine does not run.
   */
  verify(hostId: string): Promise<readonly Alteration[]>;

  /**
   * Cuts the host from every network: {@link connect} refuses it until {@link release}. Its machine is left as it
   * is, for whoever looks into it. A host that does not exist is no error.
   */
  quarantine(hostId: string): Promise<void>;

  /** Ends a quarantine: {@link connect} opens the host's ways again. One that is in none, or not there, is no error. */
  release(hostId: string): Promise<void>;

  /** Memory in use by a running host; undefined where it does not run or the driver can't tell. */
  memory(hostId: string): Promise<HostMemory | undefined>;
}

/** Something of a host that is not as it was made. */
export interface Alteration {
  /** Which part of the manifest, in a word or two, such as `firewall`. */
  readonly part: string;
  /** What is missing, and what was not there before; for operators. */
  readonly detail: string;
}

/** What a template is made for. */
export interface TemplatePlan {
  readonly planName: string;
  readonly shape: HostShape;
}

/** A hypervisor could not do what was asked. The message is for operators and holds what the tool printed. */
export class HypervisorError extends Error {
  override readonly name = 'HypervisorError';
}
