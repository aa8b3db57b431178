import type { HostSpec } from './host-spec.ts';

/** Address of a host's Docker engine, as a gateway reaches it. */
export interface EngineAddress {
  readonly host: string;
  readonly port: number;
}

/** The engine's port at the host's own address; a published port is never this one. */
export const enginePort = 2375;

/** What was found among the network rules of the node, as lines for operators. */
export interface NodeRulesReport {
  /** Differences from the rules that all hosts share, which are in force again. */
  readonly altered: readonly string[];
  /** Additions of other programs since the last report, which stay. */
  readonly foreign: readonly string[];
}

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
   * Puts back what is missing or altered in the network rules that all hosts share, and says what else is new. Called every two
   * seconds.
   */
  repairNode(): Promise<NodeRulesReport>;
}
