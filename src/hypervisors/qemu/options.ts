import type { Logger } from '../../lib/logger.ts';
import type { GuestImage } from './image/guest-image.ts';
import type { HostLimits } from './network/rules.ts';

/** What hosts of one template share in memory. */
export type PageSharing = 'template' | 'none';

export type Accelerator = 'kvm' | 'tcg';

/** What the driver is made with. All names and numbers that are global to the machine follow from it. */
export interface QemuOptions {
  /** Four hexadecimal digits: tells this installation's namespaces, rules and cgroups from another's. */
  readonly site: string;
  /** Holds `images/`, `templates/`, `disks/` and `hosts/`; every user can enter it. */
  readonly stateDirectory: string;
  /** Holds sockets, below /run: what a reboot takes away. */
  readonly runDirectory: string;
  /** The project's `libexec/`. */
  readonly libexecDirectory: string;
  readonly image: GuestImage;
  readonly accelerator: Accelerator;
  /** IPv4 network out of which hosts get their addresses. */
  readonly hostNetwork: string;
  /** The user ids of hosts begin here; each host has its own. */
  readonly firstUid: number;
  /** The only user, besides root, that may connect to an engine. */
  readonly gatewayUid: number;
  /** IPv4 addresses that a guest's name queries are sent to; none: guests can't resolve names. */
  readonly dnsServers: readonly string[];
  readonly hostLimits: HostLimits;
  /** Whether hosts share the pages of their template that none has written to, or have copies of their own. */
  readonly pageSharing: PageSharing;
  /** Load small templates when the driver is opened; else each when it is first used. */
  readonly loadAhead: boolean;
  readonly logger: Logger;
}
