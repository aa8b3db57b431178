import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { requireDisk } from '../disk-admission.ts';
import { refused } from '../errors.ts';
import { requireMemory } from '../memory-admission.ts';
import type { Instance } from '../model/instance.ts';
import type { JsonObject } from '../model/json.ts';
import type { Records } from '../ports/store.ts';
import { requireQuota, usageOf } from '../quotas.ts';
import { tenantKey } from '../tenant-key.ts';
import { beginOperation } from './begin-operation.ts';
import type { InstanceDeps } from './deps.ts';
import { idRestMs } from './id-reuse.ts';
import { requestedSettings } from './requested-settings.ts';
import { requireOffering, requirePlan } from './plan-lookup.ts';
import { withoutEmpty } from './platform-context.ts';

export interface ProvisionRequest {
  readonly platformId: string;
  readonly instanceId: string;
  readonly serviceId: string;
  readonly planId: string;
  readonly organizationGuid: string;
  readonly spaceGuid: string;
  readonly context: JsonObject;
  readonly parameters: JsonObject;
  /** The image version that the platform knows; undefined if it sends none. */
  readonly maintenanceVersion: string | undefined;
  readonly acceptsIncomplete: boolean;
}

/**
 * Records an instance, its host and the operation that creates it, in one transaction.
 * @returns the id of the operation; undefined if a retry finds the instance created.
 */
export function provision(deps: InstanceDeps, request: ProvisionRequest): Promise<string | undefined> {
  const { catalog, rules, store, imageVersion, admission, diskAdmission } = deps;
  const plan = requirePlan(catalog, request.serviceId, request.planId);
  rules.checkProvision(plan, request.parameters);
  const demand = requestedSettings(plan, request.parameters);
  const key = tenantKey(requireOffering(catalog, request.serviceId).tenant, request);

  return store.transaction(async (records) => {
    await records.lockInstanceId(request.platformId, request.instanceId);
    const existing = await records.instance(request.platformId, request.instanceId, 'lock');
    if (existing !== undefined && !(await records.releaseInstanceId(existing.id, idRestMs))) {
      const tenant = await records.findOrCreateTenant(request.platformId, key);
      return continueProvision(records, request, existing, existing.tenantId === tenant.id);
    }
    if (await records.wasDeletedEarly(request.platformId, request.instanceId)) {
      throw refused.conflict(
        'This instance id was deleted before its creation arrived. Use a new instance id, or this one an hour later.',
      );
    }
    const { maintenanceVersion } = request;
    if (maintenanceVersion !== undefined && maintenanceVersion !== imageVersion()) {
      throw refused.maintenanceInfoConflict();
    }
    if (!request.acceptsIncomplete) throw refused.asyncRequired();
    const tenant = await records.findOrCreateTenant(request.platformId, key);
    const id = randomUUID();
    await records.insertInstance({
      id,
      platformId: request.platformId,
      tenantId: tenant.id,
      osbId: request.instanceId,
      serviceId: request.serviceId,
      planId: request.planId,
      parameters: request.parameters,
      // With the ids that a context may leave out, so that an update can tell whether the owner changes.
      context: {
        organization_guid: request.organizationGuid,
        space_guid: request.spaceGuid,
        ...withoutEmpty(request.context),
      },
      expiresAt:
        demand.expiresAfterMs === undefined ? undefined : new Date(Date.now() + demand.expiresAfterMs),
    });
    const operation = await beginOperation(records, 'provision', id);
    // Last, because it locks the usage counts that all tenants share until the commit.
    const assigned = await records.insertHost(
      {
        id: randomUUID(),
        instanceId: id,
        tenantId: tenant.id,
        planName: plan.name,
        shape: plan.shape,
        publishedPorts: demand.publishedPorts,
        egress: demand.egress,
        registries: demand.registries,
        idle: demand.idle,
      },
      plan.fromTemplate ? imageVersion() : undefined,
    );
    if (assigned === undefined) {
      throw refused.unavailable(
        `This broker is full: it has ports for ${records.slotCount} hosts, including those of the pool, and all are in use, or were until a few minutes ago. Delete an instance, try again later, or ask the operator of the broker for more (BERTH_PUBLISHED_PORTS).`,
      );
    }
    await requireQuota(records, catalog, plan, tenant.id, usageOf(plan, demand.publishedPorts));
    const { parkedShape } = assigned;
    await requireMemory(records, admission, {
      promisedMib: plan.shape.memoryMib,
      inUseMib: parkedShape?.memoryMib ?? 0,
    });
    // A parked host's disk is promised already.
    await requireDisk(records, diskAdmission, plan.shape.diskGib - (parkedShape?.diskGib ?? 0));
    return operation;
  });
}

/**
 * Answers a retry like the first request.
 * @throws RefusedError if the request is not a retry, or the instance is being deleted.
 */
async function continueProvision(
  records: Records,
  request: ProvisionRequest,
  existing: Instance,
  sameTenant: boolean,
): Promise<string | undefined> {
  switch (existing.state) {
    case 'deleting':
      throw refused.concurrency();
    case 'deleted':
      throw refused.conflict(
        'This instance id was used, and deleted less than an hour ago. Use a new instance id, or this one an hour after its deletion.',
      );
    case 'failed':
      throw refused.conflict(
        'The creation of this instance failed. Delete it; its id can be used again an hour after that.',
      );
    case 'creating':
    case 'ready':
    case 'expired':
      if (
        !sameTenant ||
        existing.serviceId !== request.serviceId ||
        existing.planId !== request.planId ||
        !isDeepStrictEqual(existing.parameters, request.parameters)
      ) {
        throw refused.conflict(
          'An instance with this id exists already, with another plan, other parameters or another owner.',
        );
      }
      if (existing.state !== 'creating') return undefined;
      if (!request.acceptsIncomplete) throw refused.asyncRequired();
      return (await records.unfinishedOperation(existing.id))?.id;
  }
}
