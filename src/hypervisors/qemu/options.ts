import type { HostShape } from '../../core/hypervisor/host-spec.ts';
import type { Logger } from '../../lib/logger.ts';
import type { GuestImage } from './image/guest-image.ts';

/** Whether hosts of a template share its memory pages, or each has a copy. */
export type PageSharing = 'template' | 'none';

export type Accelerator = 'kvm' | 'tcg';

/** CPUs and memory of a VM. */
export type VmSize = Pick<HostShape, 'vcpus' | 'memoryMib'>;

/** What a VM is started with, and what it can grow to. Only a VM with the same bounds can load its memory. */
export interface VmBounds {
  readonly start: VmSize;
  readonly room: VmSize;
}

/** How much a host may read and write on its data disk, together; for seconds at a time up to twice as much. */
export interface DiskRate {
  readonly mibPerSecond: number;
  /** Requests per second. */
  readonly iops: number;
}

/** Limits on one host's use of what all hosts share. Packets beyond them are dropped and counted. */
export interface HostLimits {
  /** Undefined: no limit. Requests beyond it wait. */
  readonly disk?: DiskRate;
  /** Open connections from its guest, and as many again from outside to its published ports. */
  readonly connections: number;
  /** In each direction, in Mbit/s. */
  readonly bandwidthMbit: number;
}

/** The driver's configuration. All names and numbers that must be unique on the node follow from it. */
export interface QemuOptions {
  /** Installation id, four hexadecimal digits: part of the names of namespaces, firewall tables and cgroups. */
  readonly site: string;
  /** Contains `images/`, `templates/`, `disks/` and `hosts/`. Every user must be able to enter it. */
  readonly stateDirectory: string;
  /** Contains sockets and manifests; below /run, because nothing in it outlives a reboot. */
  readonly runDirectory: string;
  /** The project's `libexec/`. */
  readonly libexecDirectory: string;
  /** The image that new hosts get at first; undefined if none is installed. */
  readonly image: GuestImage | undefined;
  /** Finds or builds the image that belongs to this version of Berth. */
  readonly ensureImage: (report: (progress: string) => void, signal: AbortSignal) => Promise<GuestImage>;
  readonly accelerator: Accelerator;
  /** IPv4 network (CIDR) of the hosts' own addresses. */
  readonly hostNetwork: string;
  /** First user id for hosts: a host's is this plus its slot. */
  readonly firstUid: number;
  /** The only user, besides root, that may connect to an engine. */
  readonly gatewayUid: number;
  /** IPv4 addresses of the resolvers for guests; empty: guests can't resolve names. */
  readonly dnsServers: readonly string[];
  /** IPv4 networks (CIDR) that no guest may reach, even if its plan allows them. */
  readonly denyNetworks: readonly string[];
  readonly hostLimits: HostLimits;
  /** Name or address at which published ports are reached from outside, if the node does not have it itself. */
  readonly externalHost?: string;
  /** Disk space that hosts never get, in MiB; undefined: 2 GiB. */
  readonly diskReserveMib?: number;
  /** How many times the node's memory is promised to hosts; undefined: once. */
  readonly memoryOvercommit?: number;
  readonly pageSharing: PageSharing;
  /** Names of the plans whose hosts are restored from the template; those of others boot cold. Undefined: all are. */
  readonly restoredPlans?: ReadonlySet<string>;
  /** What a host can grow to while it runs. */
  readonly room: HostShape;
  /** Load small templates when the driver is opened, instead of each at its first use. */
  readonly loadAhead: boolean;
  readonly logger: Logger;
}
