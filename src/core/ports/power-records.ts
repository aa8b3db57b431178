import type { HostPower, PowerRequest } from '../model/host.ts';

/** Power states of hosts, and the requests to change them. */
export interface PowerRecords {
  /**
   * Records that a host is about to pause or suspend, or has woken, and notifies gateways.
   * @returns false if the host's power is not `from`, or an operation is in progress on its instance.
   */
  setHostPower(hostId: string, from: HostPower, to: HostPower): Promise<boolean>;
  /** Records that a sleeping host can't be woken for lack of memory, and notifies gateways. */
  recordWakeRefusal(hostId: string): Promise<void>;
  /** Makes gateways read the host's bindings again. */
  notifyGateways(hostId: string): Promise<void>;
  /** Asks the worker for a power state; false unless the host is running. */
  requestPower(hostId: string, power: HostPower): Promise<boolean>;
  powerRequest(hostId: string): Promise<PowerRequest | undefined>;
  powerRequests(): Promise<readonly PowerRequest[]>;
  /** Deletes a fulfilled request, unless a later one has replaced it. */
  deletePowerRequest(request: PowerRequest): Promise<void>;
}
