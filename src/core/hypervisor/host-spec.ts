/**
 * The port behind which hosts are made. A driver is a function that returns a {@link Hypervisor};
 * `test/contract/` holds the one suite that every driver passes.
 */

/** What a plan gives a host. */
export interface HostShape {
  /** Virtual CPUs. */
  readonly vcpus: number;
  /** Guest memory in MiB. */
  readonly memoryMib: number;
  /** Size of the guest's data disk in GiB. */
  readonly diskGib: number;
}

/** Where a host's guest may open connections to. Everything not named is refused (design: the network). */
export type Egress =
  | { readonly kind: 'internet' }
  | { readonly kind: 'none' }
  | {
      readonly kind: 'networks';
      readonly cidrs: readonly string[];
      /** A tenant's own choice out of the internet: it opens nothing that the internet would not. */
      readonly publicOnly?: true;
    };

/** A block of ports, mapped one to one from the machine to the guest, TCP and UDP. */
export interface PortBlock {
  /** First port of the block. */
  readonly first: number;
  /** Number of ports; 0 publishes none. */
  readonly count: number;
}

/** What a host's engine is told of the registries that it pulls images from. */
export interface RegistrySettings {
  /** URLs that are asked first for the images of Docker Hub. */
  readonly mirrors: readonly string[];
  /** Registries, as `host`, `host:port` or a network, whose certificates are not checked. */
  readonly insecure: readonly string[];
  /** Certificates (PEM) of authorities that may vouch for one registry, as `host` or `host:port`. */
  readonly authorities: readonly { readonly host: string; readonly certificate: string }[];
}

export const noRegistries: RegistrySettings = { mirrors: [], insecure: [], authorities: [] };

/**
 * Everything that a driver needs to know of one host. It is read from Postgres, so that a driver keeps no
 * truth of its own: the same spec always names the same machine.
 */
export interface HostSpec {
  /** UUID of the host: the name under which the driver makes it and finds it again. */
  readonly hostId: string;
  /**
   * Small number that no other living host has. A driver derives from it what must be unique on one
   * machine: addresses, interface names, user id.
   */
  readonly slot: number;
  /** Name of the plan: which template the host may be restored from. */
  readonly planName: string;
  readonly shape: HostShape;
  readonly publishedPorts: PortBlock;
  readonly egress: Egress;
  readonly registries: RegistrySettings;
  /** Version of the image that the host boots; left out: the one that it has, and where it never ran the installed one. */
  readonly imageVersion?: string;
}
