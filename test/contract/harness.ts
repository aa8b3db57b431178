import type { HostSpec } from '../../src/core/hypervisor/host-spec.ts';
import type { Hypervisor } from '../../src/core/hypervisor/hypervisor.ts';
import type { EngineAddress } from '../../src/core/hypervisor/network.ts';

/** Names of the plans that each harness's drivers restore from the template; hosts of others boot cold. */
export const restoredPlans: ReadonlySet<string> = new Set(['small', 'larger']);

/** What the suite needs from a driver's environment, beyond the contract. Each driver's test file makes one. */
export interface HypervisorHarness {
  /** A new driver object over the same state, not opened: what a restarted worker has. */
  createDriver(): Hypervisor | Promise<Hypervisor>;

  /** The plan of all hosts. The suite makes the template once and restores its hosts from it. */
  readonly plan: Pick<HostSpec, 'planName' | 'shape'>;

  /** Spec of a new host: its hostId, slot and ports are unused in this run. */
  newSpec(): HostSpec;

  /**
   * Sends a request to an engine as a gateway would (same user, same namespace), with a timeout of a few seconds.
   * @throws if nothing answers.
   */
  askEngine(address: EngineAddress, request: EngineRequest): Promise<{ status: number; body: string }>;

  /** Ends the host's VM as a crash or the OOM killer would, without the driver. */
  killVm(hostId: string): Promise<void>;

  /** States in which a worker that is killed during `prepare` or `destroy` can leave a host. */
  readonly halfMade: readonly { readonly name: string; leave(spec: HostSpec): Promise<void> }[];

  /** Ways in which the memory of a suspended host can be unusable; empty if the driver can't suspend. */
  readonly unusableMemory: readonly {
    readonly name: string;
    readonly leave: (spec: HostSpec) => Promise<void>;
  }[];

  /** Replaces the host's own record with this text. */
  writeRecord(spec: HostSpec, text: string): Promise<void>;

  /** Everything of a host that exists (processes, namespaces, rules, cgroups, files), found without the driver. */
  residue(hostId: string): Promise<readonly string[]>;

  /** Removes everything that the harness has made. */
  close(): Promise<void>;
}

export interface EngineRequest {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  /** JSON. */
  readonly body?: string;
}

/** How long the suite waits for a driver's guests; the timeouts of its tests follow from it. */
export interface Patience {
  /** From a cold boot until the engine answers, in milliseconds. */
  readonly bootMs: number;
  /** To make the harness and the template, in milliseconds. */
  readonly templateMs: number;
}
