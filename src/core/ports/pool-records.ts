import type { PoolHost } from '../model/host.ts';
import type { Egress, HostShape } from '../hypervisor/host-spec.ts';

export interface NewPoolHost {
  readonly id: string;
  readonly planName: string;
  readonly shape: HostShape;
  readonly publishedPorts: number;
  readonly egress: Egress;
}

/** Hosts of the pool, which have no owner. */
export interface PoolRecords {
  /** Records a host for the pool, in state `parking`; undefined if no slot is free. */
  insertPoolHost(host: NewPoolHost): Promise<PoolHost | undefined>;
  /** The hosts of the pool, oldest first. */
  poolHosts(): Promise<readonly PoolHost[]>;
  /**
   * Lets instances claim the host; false if it is no longer `parking`.
   * @param vm.canGrow whether an instance of a larger plan may claim it too.
   */
  setHostParked(hostId: string, vm: { imageVersion: string; canGrow: boolean }): Promise<boolean>;
  /**
   * How many instances of each plan were created in the last `seconds`, by the plan's id.
   * @param mostOfTenant how many of a tenant's are counted: its newest.
   */
  createdInstances(seconds: number, mostOfTenant: number): Promise<ReadonlyMap<string, number>>;
  /** Makes the host unclaimable, so that it can be destroyed; false if an instance has claimed it. */
  withdrawPoolHost(hostId: string): Promise<boolean>;
  /** Makes `owner` the leader of this controller for `leaseMs` milliseconds; false while another one is. */
  acquireLeadership(name: string, owner: string, leaseMs: number): Promise<boolean>;
}
