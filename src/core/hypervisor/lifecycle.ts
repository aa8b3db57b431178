import type { HostSpec } from './host-spec.ts';

/** How a machine came to run: restored ahead into the pool, restored from a template, or booted cold. */
export type StartedFrom = 'pool' | 'template' | 'boot';

/** One host that exists on the hypervisor, as found there and not as remembered. */
export interface ObservedHost {
  readonly hostId: string;
  /**
   * `running`: its machine runs. `paused`: it is there, and its processors stand still. `suspended`: its memory is
   * on disk. `stopped`: its disk or network exists, but no machine.
   */
  readonly state: 'running' | 'paused' | 'suspended' | 'stopped';
}

/** Makes, starts, stops, changes and destroys hosts. */
export interface Lifecycle {
  /** Makes the host's disk and network. No machine runs yet, and nothing can reach it. */
  prepare(spec: HostSpec): Promise<void>;

  /**
   * Starts the host's machine: lets it go where it is held, restores it from the template where the host has
   * never run and there is one, resumes it where it is paused or suspended, else boots it cold from the host's own disk. A machine that runs is left alone.
   * Nothing can reach the guest until {@link connect}.
   */
  start(spec: HostSpec): Promise<void>;

  /** Stops the machine, its disk kept. Nothing reaches it afterwards. */
  stop(hostId: string): Promise<void>;

  /**
   * Makes a stopped host what its spec says from its next start on: processors, memory, the image. Its disk
   * keeps what is on it: it grows where it is smaller, and its file system when it boots; it never shrinks.
   * @throws HypervisorError where the image is not installed, or the machine runs.
   */
  reshape(spec: HostSpec): Promise<void>;

  /** Ends the host and wipes and removes everything of it. A host that does not exist is no error. */
  destroy(hostId: string): Promise<void>;

  /** Every host that exists here, whether Postgres knows it or not. */
  list(): Promise<readonly ObservedHost[]>;

  /** How the host's running machine came to run, as it stands on record with the machine. */
  startedFrom(hostId: string): Promise<StartedFrom>;

  /** Version of the image that a host boots, as it stands on record with the machine. */
  imageVersionOf(hostId: string): Promise<string>;
}
