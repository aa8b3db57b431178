import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { type Catalog, maximumPollingSeconds } from '../catalog/catalog.ts';
import { refused } from '../errors.ts';
import type { Instance, JsonObject, Operation, OperationKind } from '../model.ts';
import { operationPlans } from '../operations/plans.ts';
import type { Records, Store } from '../store.ts';
import { tenantKey } from '../tenant.ts';
import { egressOf, type ParameterRules } from './parameters.ts';
import { checkHints, requirePlan } from './plan-lookup.ts';

/** Waits for operations of other processes. */
export interface OperationWaiter {
  /** The operation once it is finished, or as it stands after `forMs` milliseconds. */
  finished(operationId: string, forMs: number): Promise<Operation | undefined>;
}

export interface ProvisionRequest {
  readonly platformId: string;
  readonly instanceId: string;
  readonly serviceId: string;
  readonly planId: string;
  readonly organizationGuid: string;
  readonly spaceGuid: string;
  readonly context: JsonObject;
  readonly parameters: JsonObject;
  readonly acceptsIncomplete: boolean;
}

export interface InstanceReference {
  readonly platformId: string;
  readonly instanceId: string;
  readonly serviceId: string | undefined;
  readonly planId: string | undefined;
}

/** How a request for work ended: it was done already, it was done just now, or it is under way. */
export type WorkOutcome =
  | { readonly kind: 'unchanged' }
  | { readonly kind: 'done' }
  | { readonly kind: 'accepted'; readonly operationId: string };

export interface OperationReport {
  readonly state: Operation['state'];
  readonly description: string;
  /** Only on a failed delete (osb-notes 17). */
  readonly instanceUsable: boolean | undefined;
}

/** The kinds that a platform asked for; what Berth does on its own account is not its business. */
const platformKinds: readonly OperationKind[] = ['provision', 'deprovision'];

/** An operation gives up this long before the platform does, so as to clean up first. In milliseconds. */
const deadlineMs = (maximumPollingSeconds - 120) * 1000;

/** What platforms do with instances (OSB 2.17: provisioning, fetching, polling, deprovisioning). */
export interface Instances {
  provision(request: ProvisionRequest): Promise<WorkOutcome>;
  deprovision(request: InstanceReference & { readonly acceptsIncomplete: boolean }): Promise<WorkOutcome>;
  fetch(request: InstanceReference): Promise<Instance>;
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
}): Instances {
  const { catalog, rules, store, waiter, syncWaitMs, notice } = parts;

  async function begin(records: Records, kind: OperationKind, instanceId: string): Promise<string> {
    const first = operationPlans[kind].steps[0];
    if (first === undefined) throw new Error(`the plan of ${kind} has no step`);
    const id = randomUUID();
    await records.insertOperation({
      id,
      kind,
      instanceId,
      step: first.name,
      description: 'Waiting for a worker',
      deadline: new Date(Date.now() + deadlineMs),
    });
    return id;
  }

  /** Waits a moment for what usually takes a moment, so that the platform need not poll. */
  async function settle(operationId: string): Promise<WorkOutcome> {
    const operation = syncWaitMs > 0 ? await waiter.finished(operationId, syncWaitMs) : undefined;
    // A failure is told by last_operation, with its reason; a 5xx here would hide it behind orphan mitigation.
    return operation?.state === 'succeeded' ? { kind: 'done' } : { kind: 'accepted', operationId };
  }

  return {
    async provision(request) {
      const plan = requirePlan(catalog, request.serviceId, request.planId);
      rules.checkProvision(plan, request.parameters);
      const key = tenantKey(request.context, request.organizationGuid);

      const operationId = await store.transaction(async (records) => {
        const existing = await records.instance(request.platformId, request.instanceId, 'lock');
        if (existing !== undefined) {
          const tenant = await records.tenant(request.platformId, key);
          return continueProvision(records, request, existing, existing.tenantId === tenant.id);
        }
        if (await records.wasDeletedUnseen(request.platformId, request.instanceId)) {
          throw refused.conflict(
            'This instance id was deleted before its creation arrived. Use a new instance id.',
          );
        }
        if (!request.acceptsIncomplete) throw refused.asyncRequired();
        const tenant = await records.tenant(request.platformId, key);
        const id = randomUUID();
        const isNew = await records.insertInstance({
          id,
          platformId: request.platformId,
          tenantId: tenant.id,
          osbId: request.instanceId,
          serviceId: request.serviceId,
          planId: request.planId,
          parameters: request.parameters,
          context: request.context,
        });
        if (!isNew) {
          // The same id came twice at once, and the other one has just been committed.
          const other = await records.instance(request.platformId, request.instanceId, 'lock');
          if (other === undefined) throw refused.concurrency();
          return continueProvision(records, request, other, other.tenantId === tenant.id);
        }
        const host = await records.insertHost({
          id: randomUUID(),
          instanceId: id,
          tenantId: tenant.id,
          planName: plan.name,
          shape: plan.shape,
          publishedPorts: plan.publishedPorts,
          egress: egressOf(plan, request.parameters),
        });
        if (host === undefined) {
          throw refused.unavailable(
            'This broker is full: no further host can be made. Delete an instance, or ask the operator for more room.',
          );
        }
        return begin(records, 'provision', id);
      });
      return operationId === undefined ? { kind: 'unchanged' } : settle(operationId);
    },

    async deprovision(request) {
      const operationId = await store.transaction(async (records) => {
        const instance = await records.instance(request.platformId, request.instanceId, 'lock');
        checkHints(catalog, instance, request);
        if (instance === undefined) {
          await records.rememberUnseenDelete(request.platformId, request.instanceId);
          return undefined;
        }
        if (instance.state === 'deleted') return undefined;
        if (!request.acceptsIncomplete) throw refused.asyncRequired();
        const running = await records.unfinishedOperation(instance.id);
        if (running?.kind === 'deprovision') return running.id;
        if (running !== undefined) {
          await records.haltOperation(running.id, 'Halted: the instance is being deleted');
        }
        await records.setInstanceState(instance.id, 'deleting');
        return begin(records, 'deprovision', instance.id);
      });
      if (operationId === undefined) throw refused.gone();
      return settle(operationId);
    },

    async fetch(request) {
      const instance = await store.records.instance(request.platformId, request.instanceId);
      checkHints(catalog, instance, request);
      if (instance === undefined) throw refused.notFound('There is no instance with this id.');
      if (instance.state === 'ready') return instance;
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
      const { records } = store;
      const instance = await records.instance(request.platformId, request.instanceId);
      checkHints(catalog, instance, request);
      if (instance === undefined) throw refused.notFound('There is no instance with this id.');
      const named =
        request.operationId === undefined ? undefined : await records.operation(request.operationId);
      const operation =
        named?.instanceId === instance.id && platformKinds.includes(named.kind)
          ? named
          : await records.latestOperation(instance.id, platformKinds);
      if (operation === undefined) throw refused.gone();
      return {
        state: operation.state,
        description: `${notice}${operation.description}`,
        // Its credentials have been revoked first of all, and its host may be half gone.
        instanceUsable: operation.kind === 'deprovision' && operation.state === 'failed' ? false : undefined,
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
      if (existing.state === 'ready') return undefined;
      if (!request.acceptsIncomplete) throw refused.asyncRequired();
      return (await records.unfinishedOperation(existing.id))?.id;
  }
}
