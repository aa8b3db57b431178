import type { HostSpec } from './host-spec.ts';

/** Where a host's Docker engine listens, as seen by the gateway. */
export interface EngineAddress {
  readonly host: string;
  readonly port: number;
}

/** Behind this port of a host's own address its engine listens; it is never among the published ones. */
export const enginePort = 2375;

/** Opens a host to its gateway and its guest to the world. */
export interface Network {
  /**
   * Opens the way from the gateway to the engine and the published ports, and the guest's egress. Where that is
   * another way than before, connections that it still allows live on, and all others end.
   */
  connect(spec: HostSpec): Promise<EngineAddress>;
}
