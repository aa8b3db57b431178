import type { PooledHost } from '../model/host.ts';
import type { Egress, HostShape } from '../hypervisor/host-spec.ts';

export interface NewPooledHost {
  readonly id: string;
  readonly planName: string;
  readonly shape: HostShape;
  readonly publishedPorts: number;
  readonly egress: Egress;
}

/** Hosts that nobody owns yet. */
export interface PoolRecords {
  /** Records a host for the pool, in state `parking`; undefined where no slot is free. */
  insertPooledHost(host: NewPooledHost): Promise<PooledHost | undefined>;
  /** The hosts that belong to nobody yet, the oldest first. */
  pooledHosts(): Promise<readonly PooledHost[]>;
  /** Lets instances claim the host. False where it is not being made any more. */
  setHostParked(hostId: string): Promise<boolean>;
  /** Lets nobody claim the host any more, so that it can be destroyed. False where somebody has claimed it. */
  withdrawPooledHost(hostId: string): Promise<boolean>;
  /** Makes `owner` the one who keeps this for so long, and true; false while another does. */
  acquireLeadership(name: string, owner: string, leaseMs: number): Promise<boolean>;
}
