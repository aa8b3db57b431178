import type { HostSpec } from './host-spec.ts';

/** Address of a host's Docker engine, as a gateway reaches it. */
export interface EngineAddress {
  readonly host: string;
  readonly port: number;
}

/** The engine's port at the host's own address; a published port is never this one. */
export const enginePort = 2375;

/** Connects a host to gateways, and its guest to the outside. */
export interface Network {
  /**
   * Opens the engine to gateways, the published ports to everybody, and the spec's egress to the guest. If the host was
   * connected differently before, connections that the new rules allow stay open and all others are cut. Only called
   * after {@link Guest.identify} returned true, for a host whose VM runs.
   * @throws HypervisorError if the host is in quarantine or not prepared.
   */
  connect(spec: HostSpec): Promise<EngineAddress>;

  /**
   * Puts back what is missing or altered of the network rules that all hosts share. Called every two seconds.
   * @returns what that was, as lines for operators; empty if nothing was.
   */
  repairNode(): Promise<readonly string[]>;
}
