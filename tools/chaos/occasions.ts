import type { OperationKind } from '../../src/core/model/operation.ts';
import { processesWith } from '../lib/residue.ts';
import { createSimulatedHypervisor } from '../../src/hypervisors/simulated/simulated.ts';
import { ids } from './catalog.ts';
import type { PatientPlatform } from './platform.ts';
import type { Site } from './site.ts';

/** What it takes for an operation of a kind to come about on an instance, and how it must end. */
export interface Occasion {
  /** The instance is ready before; for `provision` there is none. */
  bring(site: Site, platform: PatientPlatform, instanceId: string): Promise<void>;
  /** State of the instance once it has ended well, and once it was undone; undefined: it has no undo. */
  readonly after: { readonly succeeded: string; readonly undone: string | undefined };
}

/** One for each kind: a kind without an occasion does not compile. */
export const occasions: Readonly<Record<OperationKind, Occasion>> = {
  provision: {
    async bring(_site, platform, id) {
      await platform.create(id);
    },
    after: { succeeded: 'ready', undone: 'failed' },
  },
  update: {
    async bring(_site, platform, id) {
      await platform.update(id, { plan_id: ids.grown });
    },
    after: { succeeded: 'ready', undone: 'ready' },
  },
  restart: {
    bring: (site, _platform, id) => endMachine(site, id),
    after: { succeeded: 'ready', undone: undefined },
  },
  expire: {
    async bring(site, _platform, id) {
      await site.insist((database) =>
        database('instances').where({ osb_id: id }).update({ expires_at: new Date() }),
      );
    },
    after: { succeeded: 'expired', undone: undefined },
  },
  deprovision: {
    async bring(_site, platform, id) {
      await platform.remove(id);
    },
    after: { succeeded: 'deleted', undone: undefined },
  },
};

/** The host of an instance that has one. */
export async function livingHostId(site: Site, instanceId: string): Promise<string | undefined> {
  const host = await site.insist((database) =>
    database('hosts')
      .join('instances', 'instances.id', 'hosts.instance_id')
      .where({ osb_id: instanceId })
      .whereNot('hosts.state', 'destroyed')
      .first<{ id: string } | undefined>('hosts.id'),
  );
  return host?.id;
}

/** Ends the machine of an instance's host as a crash does. */
async function endMachine(site: Site, instanceId: string): Promise<void> {
  const hostId = await livingHostId(site, instanceId);
  if (hostId === undefined) return;
  const { hypervisor, stateDirectory } = site.settings;
  if (hypervisor === 'simulated') {
    await createSimulatedHypervisor({ stateDirectory }).stop(hostId);
    return;
  }
  for (const { pid } of await processesWith(`berth-${site.id}-${hostId}`)) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It has ended by itself in this very moment.
    }
  }
}
