import type { HostPower, PowerRequest } from '../model/host.ts';

/** Sleep of hosts, and the requests to change it. */
export interface PowerRecords {
  /**
   * Records that a host is going to sleep, or has woken; gateways hear of it.
   * @returns false where the host is not running as `from` says, or an operation is in progress on its instance.
   */
  setHostPower(hostId: string, from: HostPower, to: HostPower): Promise<boolean>;
  /** Records that a host which sleeps can't be woken for want of memory; gateways hear of it. */
  recordWakeRefusal(hostId: string): Promise<void>;
  /** Has gateways read again what they know of the host. */
  notifyGateways(hostId: string): Promise<void>;
  /** Asks the worker for it. False where there is no such host to ask it of. */
  requestPower(hostId: string, power: HostPower): Promise<boolean>;
  powerRequest(hostId: string): Promise<PowerRequest | undefined>;
  powerRequests(): Promise<readonly PowerRequest[]>;
  /** The request has been met, unless another has come meanwhile. */
  deletePowerRequest(request: PowerRequest): Promise<void>;
}
