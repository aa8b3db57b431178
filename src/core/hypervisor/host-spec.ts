/** Size of a host. */
export interface HostShape {
  /** Virtual CPUs. */
  readonly vcpus: number;
  /** Guest memory in MiB. */
  readonly memoryMib: number;
  /** Size of the guest's data disk in GiB. */
  readonly diskGib: number;
}

/** Where a host's guest may open connections to. Everything else is refused. */
export type Egress =
  | { readonly kind: 'internet' }
  | { readonly kind: 'none' }
  | {
      readonly kind: 'networks';
      readonly cidrs: readonly string[];
      /** The tenant's own restriction of `internet`: opens nothing that `internet` would not. */
      readonly publicOnly?: true;
    };

/** A block of ports that is published one to one from the node to the guest, TCP and UDP. */
export interface PortBlock {
  /** First port of the block. */
  readonly first: number;
  /** Number of ports; 0 publishes none. */
  readonly count: number;
}

/** Registries that a host's engine pulls images from. */
export interface RegistrySettings {
  /** URLs of mirrors that are asked first for images of Docker Hub. */
  readonly mirrors: readonly string[];
  /** Registries (`host`, `host:port` or a network) whose certificates are not checked. */
  readonly insecure: readonly string[];
  /** CA certificates (PEM), each trusted for one registry (`host` or `host:port`). */
  readonly authorities: readonly { readonly host: string; readonly certificate: string }[];
}

export const noRegistries: RegistrySettings = { mirrors: [], insecure: [], authorities: [] };

/**
 * Everything that a driver needs to know about one host. Postgres is the source: two specs with the same `hostId`
 * are the same host, and only what `reshape`, `grow`, `identify`, `connect` and `configureRegistries` apply may differ between them.
 */
export interface HostSpec {
  /** UUID of the host: the name under which the driver makes it and finds it again. */
  readonly hostId: string;
  /**
   * Id of the instance that the host belongs to; undefined while the host is in the pool. The host's own record keeps
   * it: a host that has had an owner never has another one.
   */
  readonly owner?: string;
  /** Small number that no other living host has. A local driver derives addresses, names and the uid from it. */
  readonly slot: number;
  /** Name of the plan: says whether the host is restored from the template. */
  readonly planName: string;
  readonly shape: HostShape;
  readonly publishedPorts: PortBlock;
  readonly egress: Egress;
  readonly registries: RegistrySettings;
  /** Version of the image that the host boots; undefined: its present image, or the installed one if it has never run. */
  readonly imageVersion?: string;
}
