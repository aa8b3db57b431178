import type { Logger } from '../../lib/logger.ts';
import type { HostLocks } from '../host-locks.ts';
import type { Hosts } from './hosts.ts';
import type { CurrentImage } from './image/current-image.ts';
import type { Digests } from './integrity/digests.ts';
import type { Manifests } from './integrity/manifest.ts';
import type { Cgroups } from './launch/cgroups.ts';
import type { VmStarter } from './launch/vm-starter.ts';
import type { Vms } from './launch/vms.ts';
import type { Suspension } from './memory/suspension.ts';
import type { HostNetworking } from './network/network.ts';
import type { RecordedRules } from './network/recorded-rules.ts';
import type { QemuOptions } from './options.ts';
import type { TemplateStore } from './template/template-store.ts';

/** What the driver's parts share: one set per driver object (qemu.ts). */
export interface QemuDeps {
  readonly options: QemuOptions;
  readonly image: CurrentImage;
  readonly hosts: Hosts;
  readonly cgroups: Cgroups;
  readonly network: HostNetworking;
  readonly manifests: Manifests;
  readonly recordedRules: RecordedRules;
  readonly digests: Digests;
  readonly vms: Vms;
  readonly starter: VmStarter;
  readonly suspension: Suspension;
  readonly templates: TemplateStore;
  readonly locks: HostLocks;
  /** Consecutive checks in which a host's monitor did not answer, by host. */
  readonly silentChecks: Map<string, number>;
  readonly logger: Logger;
}
