import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { allCapabilities } from '../../core/hypervisor/capabilities.ts';
import type { Driver, Hypervisor } from '../../core/hypervisor/hypervisor.ts';
import { leaseMs } from '../../core/lease-duration.ts';
import { createHostLocks } from '../host-locks.ts';
import { type Faults, withFaults } from '../with-faults.ts';
import { hasRun } from './launch/vm-starter.ts';
import { withOwners } from '../with-owners.ts';
import { withDeadlines } from '../with-deadlines.ts';
import { withHostLocks } from '../with-host-locks.ts';
import type { QemuDeps } from './deps.ts';
import { createGuest } from './guest.ts';
import { boundsOf } from './host-record.ts';
import { createHosts } from './hosts.ts';
import { openCurrentImage } from './image/current-image.ts';
import { createImages } from './images.ts';
import { createDigests } from './integrity/digests.ts';
import { createManifests } from './integrity/manifest.ts';
import { createIntegrity } from './integrity.ts';
import { openCgroups } from './launch/cgroups.ts';
import { type Jail, openJail } from './launch/jail.ts';
import { createVmStarter } from './launch/vm-starter.ts';
import { createVms } from './launch/vms.ts';
import { createLifecycle } from './lifecycle.ts';
import { memoryKeyOf, readNodeKey } from './memory/memory-key.ts';
import { createSuspension } from './memory/suspension.ts';
import { createMetering } from './metering.ts';
import { createHostNetworking } from './network/network.ts';
import { createRecordedRules } from './network/recorded-rules.ts';
import { createNetwork } from './network.ts';
import type { QemuOptions } from './options.ts';
import { createPower } from './power.ts';
import { createRunState } from './run-state.ts';
import { createTemplateStore } from './template/template-store.ts';
import { createTemplates, removeUnfinishedTemplate } from './templates.ts';

/** What tests and benchmarks replace or add. */
export interface QemuOverrides {
  /** In place of the real jail. */
  readonly jail?: Jail;
  readonly faults?: Faults;
}

/**
 * Hosts as QEMU VMs on this node, each with its own user, control group and network namespace. All state is on the
 * node: another driver object with the same options finds every host again.
 */
export async function createQemuHypervisor(
  options: QemuOptions,
  { jail, faults }: QemuOverrides = {},
): Promise<Hypervisor> {
  const deps = await createDeps(options, jail);
  const driver = withDeadlines(withFaults(createQemuDriver(deps), faults));
  return withHostLocks(
    withOwners(driver, {
      async read(hostId) {
        const record = await deps.hosts.record(hostId);
        return record && { owner: record.owner, slot: record.slot, hasRun: hasRun(record) };
      },
      hostIds: () => deps.hosts.ids(),
      slotByDisk: (hostId) => deps.hosts.slotByDisk(hostId),
    }),
    deps.locks,
  );
}

function createQemuDriver(deps: QemuDeps): Driver {
  const { options, hosts, network, logger } = deps;
  return {
    name: 'qemu',
    capabilities: allCapabilities,

    async open() {
      await mkdir(hosts.directory, { recursive: true, mode: 0o711 });
      await mkdir(options.runDirectory, { recursive: true, mode: 0o755 });
      const foreign = await network.open();
      if (foreign.length > 0) {
        logger.error({ foreign }, "Removed firewall chains from Berth's table that are not Berth's");
      }
      await removeUnfinishedTemplate(deps);
      if (options.loadAhead) deps.templates.preload();
    },

    close: () => deps.templates.close(),

    ...createLifecycle(deps),
    ...createPower(deps),
    ...createGuest(deps),
    ...createNetwork(deps),
    ...createIntegrity(deps),
    ...createImages(deps),
    ...createTemplates(deps),
    ...createMetering(deps),
    ...createRunState(deps),
  };
}

async function createDeps(options: QemuOptions, givenJail: Jail | undefined): Promise<QemuDeps> {
  const { stateDirectory, runDirectory, logger } = options;
  const image = await openCurrentImage(stateDirectory, options.image, logger);
  const cgroups = await openCgroups(options.site);
  const locks = createHostLocks(path.join(runDirectory, 'locks'), { patienceMs: leaseMs, logger });
  const network = createHostNetworking(options, locks);
  const jail = givenJail ?? (await openJail(stateDirectory, options.accelerator));
  const digests = createDigests();
  const manifests = createManifests(stateDirectory);
  const vms = createVms(options, cgroups, jail, manifests, logger);
  const nodeKey = await readNodeKey(options.accelerator);
  const templates = createTemplateStore(options, image, nodeKey, digests, logger);
  return {
    options,
    image,
    hosts: createHosts(options, cgroups),
    cgroups,
    network,
    manifests,
    recordedRules: createRecordedRules(manifests, network, logger),
    digests,
    vms,
    starter: createVmStarter(options, { image, cgroups, vms, templates, digests }),
    suspension: createSuspension({
      cgroups,
      vms,
      templates,
      keyOf: (record) => memoryKeyOf(nodeKey, boundsOf(record)),
      diskReserveMib: options.diskReserveMib,
      logger,
    }),
    templates,
    locks,
    silentChecks: new Map(),
    logger,
  };
}
