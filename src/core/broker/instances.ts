import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { requireMemory } from '../admission.ts';
import type { AdmissionRules } from '../model/node-memory.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { refused } from '../errors.ts';
import type { Logger } from '../../lib/logger.ts';
import type { Host } from '../model/host.ts';
import type { Instance } from '../model/instance.ts';
import type { JsonObject } from '../model/json.ts';
import { platformKinds, type Operation, type ReportedOperation } from '../model/operation.ts';
import { requireQuota, usageOf } from '../quotas.ts';
import type { Records, Store } from '../ports/store.ts';
import { tenantKey } from '../tenant-key.ts';
import { withoutEmpty } from './context.ts';
import { demandOf, type ParameterRules } from './parameters.ts';
import { checkPlatformIds, requireOffering, requirePlan } from './plan-lookup.ts';
import type { InstanceReference } from './references.ts';
import { createUpdate, type UpdateRequest } from './update.ts';
import type { OperationWaiter } from '../ports/operation-waiter.ts';
import { beginOperation } from './begin-operation.ts';
import { waitBriefly, type WorkOutcome } from './wait-briefly.ts';

export interface ProvisionRequest {
  readonly platformId: string;
  readonly instanceId: string;
  readonly serviceId: string;
  readonly planId: string;
  readonly organizationGuid: string;
  readonly spaceGuid: string;
  readonly context: JsonObject;
  readonly parameters: JsonObject;
  /** The version of the image that the platform knows of; undefined where it does not say. */
  readonly maintenanceVersion: string | undefined;
  readonly acceptsIncomplete: boolean;
}

/** What a platform sees of an instance. */
export interface InstanceView {
  readonly instance: Instance;
  /** Undefined once it has expired. */
  readonly host: Host | undefined;
}

export interface OperationReport {
  readonly state: Operation['state'];
  readonly description: string;
  /** Only on a failed update or delete (docs/osb.md 17). */
  readonly instanceUsable: boolean | undefined;
  /** Only on a failed update. */
  readonly updateRepeatable: boolean | undefined;
}

/** What platforms do with instances (OSB 2.17: provisioning, fetching, polling, deprovisioning). */
export interface Instances {
  provision(request: ProvisionRequest): Promise<WorkOutcome & InstanceView>;
  deprovision(request: InstanceReference & { readonly acceptsIncomplete: boolean }): Promise<WorkOutcome>;
  /** What changes nothing of the host is done at once; all else is an operation. */
  update(request: UpdateRequest): Promise<WorkOutcome & InstanceView>;
  fetch(request: InstanceReference): Promise<InstanceView>;
  lastOperation(
    request: InstanceReference & { readonly operationId: string | undefined },
  ): Promise<OperationReport>;
}

/**
 * @param parts.syncWaitMs how long a request waits for its operation; 0 answers 202 at once.
 * @param parts.notice goes before every description of an operation, for what people must not overlook.
 */
export function createInstances(parts: {
  catalog: Catalog;
  rules: ParameterRules;
  store: Store;
  waiter: OperationWaiter;
  syncWaitMs: number;
  notice: string;
  /** The version of the image that new hosts are made from; undefined until a worker has told. */
  imageVersion: () => string | undefined;
  admission: AdmissionRules;
  logger: Logger;
}): Instances {
  const { catalog, rules, store, waiter, syncWaitMs, notice, imageVersion, admission, logger } = parts;

  const update = createUpdate({ catalog, rules, store, imageVersion, admission, logger });

  /** An instance that has just been recorded or found. */
  async function viewOf({
    platformId,
    instanceId,
  }: {
    platformId: string;
    instanceId: string;
  }): Promise<InstanceView> {
    const instance = await store.records.instance(platformId, instanceId);
    if (instance === undefined) throw new Error('an instance that was recorded is gone');
    return { instance, host: await store.records.hostOfInstance(instance.id) };
  }

  /** Whether the instance still serves, its last operation having failed; undefined of a create (docs/osb.md 17). */
  async function isUsable(operation: ReportedOperation): Promise<boolean | undefined> {
    if (operation.kind === 'provision') return undefined;
    // Of a failed delete the credentials have been revoked first of all, and the host may be half gone.
    if (operation.kind === 'deprovision') return false;
    const host = await store.records.hostOfInstance(operation.instanceId);
    return host?.state === 'running' && host.engine !== undefined;
  }

  return {
    async provision(request) {
      const plan = requirePlan(catalog, request.serviceId, request.planId);
      rules.checkProvision(plan, request.parameters);
      const demand = demandOf(plan, request.parameters);
      const key = tenantKey(requireOffering(catalog, request.serviceId).tenant, request);

      const operationId = await store.transaction(async (records) => {
        await records.lockInstanceId(request.platformId, request.instanceId);
        const existing = await records.instance(request.platformId, request.instanceId, 'lock');
        if (existing !== undefined) {
          const tenant = await records.findOrCreateTenant(request.platformId, key);
          return continueProvision(records, request, existing, existing.tenantId === tenant.id);
        }
        if (await records.wasDeletedEarly(request.platformId, request.instanceId)) {
          throw refused.conflict(
            'This instance id was deleted before its creation arrived. Use a new instance id.',
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
          // With what a context may leave out, so that an update can tell whether the owner changes.
          context: {
            organization_guid: request.organizationGuid,
            space_guid: request.spaceGuid,
            ...withoutEmpty(request.context),
          },
          expiresAt:
            demand.expiresAfterMs === undefined ? undefined : new Date(Date.now() + demand.expiresAfterMs),
        });
        const operation = await beginOperation(records, 'provision', id);
        // Last of all: it holds the counts of everybody's use until the commit.
        const newId = randomUUID();
        const host = await records.insertHost({
          id: newId,
          instanceId: id,
          tenantId: tenant.id,
          planName: plan.name,
          shape: plan.shape,
          publishedPorts: demand.publishedPorts,
          egress: demand.egress,
          registries: demand.registries,
          idle: demand.idle,
        });
        if (host === undefined) {
          throw refused.unavailable(
            `This broker is full: it has ports for ${records.slotCount} hosts, and all of them are in use, those of the pool among them. Delete an instance, or ask the operator of the broker for more (BERTH_PUBLISHED_PORTS).`,
          );
        }
        await requireQuota(records, catalog, plan, tenant.id, usageOf(plan, demand.publishedPorts));
        await requireMemory(records, admission, {
          promisedMib: plan.shape.memoryMib,
          isInUse: host.id !== newId,
        });
        return operation;
      });
      const outcome: WorkOutcome =
        operationId === undefined
          ? { kind: 'unchanged' }
          : await waitBriefly(waiter, syncWaitMs, operationId);
      return { ...outcome, ...(await viewOf(request)) };
    },

    async update(request) {
      const operationId = await update(request);
      const outcome: WorkOutcome =
        operationId === undefined
          ? { kind: 'unchanged' }
          : await waitBriefly(waiter, syncWaitMs, operationId);
      return { ...outcome, ...(await viewOf(request)) };
    },

    async deprovision(request) {
      const operationId = await store.transaction(async (records) => {
        await records.lockInstanceId(request.platformId, request.instanceId);
        const instance = await records.instance(request.platformId, request.instanceId, 'lock');
        checkPlatformIds(catalog, instance, request, logger);
        if (instance === undefined) {
          await records.recordEarlyDelete(request.platformId, request.instanceId);
          return undefined;
        }
        if (instance.state === 'deleted') return undefined;
        if (!request.acceptsIncomplete) throw refused.asyncRequired();
        const running = await records.unfinishedOperation(instance.id);
        if (running?.kind === 'deprovision') return running.id;
        if (running?.kind === 'update') throw refused.concurrency();
        if (running !== undefined) {
          await records.cancelOperation(running.id, 'Halted: the instance is being deleted');
        }
        await records.setInstanceState(instance.id, 'deleting');
        return beginOperation(records, 'deprovision', instance.id);
      });
      if (operationId === undefined) throw refused.gone();
      return waitBriefly(waiter, syncWaitMs, operationId);
    },

    async fetch(request) {
      const instance = await store.records.instance(request.platformId, request.instanceId);
      checkPlatformIds(catalog, instance, request, logger);
      if (instance === undefined) throw refused.notFound('There is no instance with this id.');
      if (instance.state === 'ready' || instance.state === 'expired') {
        const running = await store.records.unfinishedOperation(instance.id);
        if (running?.kind === 'update') throw refused.concurrency();
        return { instance, host: await store.records.hostOfInstance(instance.id) };
      }
      throw refused.notFound(
        {
          creating: 'The instance is still being created.',
          failed: 'The instance could not be created, or not be deleted. Delete it.',
          deleting: 'The instance is being deleted.',
          deleted: 'The instance has been deleted.',
        }[instance.state],
      );
    },

    async lastOperation(request) {
      const found = await store.records.reportedOperation(
        { platformId: request.platformId, osbId: request.instanceId, operationId: request.operationId },
        platformKinds,
      );
      checkPlatformIds(catalog, found?.instance, request, logger);
      if (found === undefined) throw refused.notFound('There is no instance with this id.');
      const { operation } = found;
      if (operation === undefined) throw refused.gone();
      return {
        state: operation.state,
        description: `${notice}${operation.description}`,
        instanceUsable: operation.state === 'failed' ? await isUsable(operation) : undefined,
        // Nothing of an update is lost by its failure, so another try can do no harm.
        updateRepeatable: operation.state === 'failed' && operation.kind === 'update' ? true : undefined,
      };
    },
  };
}

/** A provision request for an id that is taken: a retry is answered as the first one was, all else is refused. */
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
      throw refused.conflict('This instance id has been used and deleted. Use a new instance id.');
    case 'failed':
      throw refused.conflict('The creation of this instance failed. Delete it before its id is used again.');
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
