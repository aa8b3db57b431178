import type { OperationKind } from '../../src/core/model/operation.ts';
import { processesWith } from '../lib/residue.ts';
import { createSimulatedHypervisor } from '../../src/hypervisors/simulated/simulated.ts';
import { ids } from './catalog.ts';
import type { PatientPlatform } from './platform.ts';
import type { ChaosInstallation } from './installation.ts';

/** How to cause an operation of a kind on an instance, and how it must end. */
export interface OperationCause {
  /** Expects a ready instance; for `provision` there is none. */
  cause(site: ChaosInstallation, platform: PatientPlatform, instanceId: string): Promise<void>;
  /** State of the instance after success and after a rollback; undefined if the workflow has no rollback. */
  readonly after: { readonly succeeded: string; readonly rolledBack: string | undefined };
}

/** One per kind: a kind without an entry does not compile. */
export const operationCauses: Readonly<Record<OperationKind, OperationCause>> = {
  provision: {
    async cause(_site, platform, id) {
      await platform.create(id);
    },
    after: { succeeded: 'ready', rolledBack: 'failed' },
  },
  update: {
    async cause(_site, platform, id) {
      await platform.update(id, { plan_id: ids.grown });
    },
    after: { succeeded: 'ready', rolledBack: 'ready' },
  },
  restart: {
    cause: (site, _platform, id) => crashVm(site, id),
    after: { succeeded: 'ready', rolledBack: undefined },
  },
  expire: {
    async cause(site, _platform, id) {
      await site.query((database) =>
        database('instances').where({ osb_id: id }).update({ expires_at: new Date() }),
      );
    },
    after: { succeeded: 'expired', rolledBack: undefined },
  },
  deprovision: {
    async cause(_site, platform, id) {
      await platform.remove(id);
    },
    after: { succeeded: 'deleted', rolledBack: undefined },
  },
};

/** The id of the instance's host; undefined if it has none. */
export async function hostIdOf(site: ChaosInstallation, instanceId: string): Promise<string | undefined> {
  const host = await site.query((database) =>
    database('hosts')
      .join('instances', 'instances.id', 'hosts.instance_id')
      .where({ osb_id: instanceId })
      .whereNot('hosts.state', 'destroyed')
      .first<{ id: string } | undefined>('hosts.id'),
  );
  return host?.id;
}

/** Ends the VM of an instance's host as a crash does. */
async function crashVm(site: ChaosInstallation, instanceId: string): Promise<void> {
  const hostId = await hostIdOf(site, instanceId);
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
      // It has just ended by itself.
    }
  }
}
