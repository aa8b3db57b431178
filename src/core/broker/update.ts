import { isDeepStrictEqual } from 'node:util';
import { type AdmissionRules, requireRoom } from '../admission.ts';
import { type Catalog, findPlan, type Plan } from '../catalog/catalog.ts';
import { refused } from '../errors.ts';
import type { Logger } from '../logger.ts';
import type { Host, Instance, JsonObject, Operation, UpdateTarget } from '../model.ts';
import { requireQuota, type Usage, usageOf } from '../quotas.ts';
import type { Records, Store } from '../store.ts';
import { tenantKey } from '../tenant.ts';
import { demandOf, type ParameterRules } from './parameters.ts';
import { checkHints, requireOffering, requirePlan } from './plan-lookup.ts';
import { beginOperation } from './work.ts';

export interface UpdateRequest {
  readonly platformId: string;
  readonly instanceId: string;
  readonly serviceId: string;
  readonly planId: string | undefined;
  /** Undefined leaves them; of those that are given, null takes one back (osb-notes 24). */
  readonly parameters: JsonObject | undefined;
  readonly context: JsonObject | undefined;
  /** Undefined leaves the host's image as it is (osb-notes 21). */
  readonly maintenanceVersion: string | undefined;
  readonly acceptsIncomplete: boolean;
}

/** What an instance is to become, next to what it is. */
interface Change {
  readonly instance: Instance;
  readonly host: Host;
  readonly plan: Plan;
  readonly target: UpdateTarget;
}

/**
 * Updates instances (OSB 2.17, "Updating a Service Instance"). What a request does is judged by its effect:
 * where the host stays as it is, the change is written at once, and no operation is begun.
 * @returns the id of the operation; undefined where there was nothing to wait for.
 */
export function createUpdate(parts: {
  catalog: Catalog;
  rules: ParameterRules;
  store: Store;
  imageVersion: () => string | undefined;
  admission: AdmissionRules;
  logger: Logger;
}): (request: UpdateRequest) => Promise<string | undefined> {
  const { catalog, rules, store, imageVersion, admission, logger } = parts;

  return async (request) => {
    const offering = requireOffering(catalog, request.serviceId);
    const planned =
      request.planId === undefined ? undefined : requirePlan(catalog, request.serviceId, request.planId);
    if (planned !== undefined) rules.checkUpdate(planned, request.parameters ?? {});

    return store.transaction(async (records) => {
      const found = await records.instance(request.platformId, request.instanceId, 'lock');
      checkHints(catalog, found, { serviceId: request.serviceId, planId: undefined }, logger);
      const { instance, host } = await requireUpdatable(records, found);
      const plan = planned ?? findPlan(catalog, instance.serviceId, instance.planId);
      if (plan === undefined) throw new Error(`the plan of instance ${instance.id} is not in the catalog`);
      rules.checkUpdate(plan, request.parameters ?? {});
      const { planId, parameters, context, maintenanceVersion } = request;
      if ([planId, parameters, context, maintenanceVersion].every((field) => field === undefined)) {
        throw refused.unprocessable(
          'The request names nothing to change: neither plan_id, parameters, maintenance_info nor context.',
        );
      }
      const merged = mergeContext(instance, context);
      const keyOf = (of: JsonObject) =>
        tenantKey(offering.tenant, {
          instanceId: request.instanceId,
          organizationGuid: '',
          spaceGuid: '',
          context: of,
        });
      if (keyOf(merged) !== keyOf(instance.context)) {
        throw refused.unprocessable(
          'The context names another owner. A host never changes its owner: create an instance there, and delete this one.',
        );
      }
      if (maintenanceVersion !== undefined && maintenanceVersion !== imageVersion()) {
        throw refused.maintenanceInfoConflict();
      }

      const target = aim(rules, instance, host, plan, request);
      const running = await records.unfinishedOperation(instance.id);
      if (running !== undefined) return continueUpdate(running, target, request);
      await records.setInstanceContext(instance.id, merged);
      const change: Change = { instance, host, plan, target };
      if (!changesHost(change)) {
        await records.setInstanceTarget(instance.id, target);
        return undefined;
      }
      if (!request.acceptsIncomplete) throw refused.asyncRequired();
      await reserve(records, catalog, admission, change);
      return beginOperation(records, 'update', instance.id, target);
    });
  };
}

/** @throws RefusedError where there is no instance, or it is not one that can be updated now. */
async function requireUpdatable(
  records: Records,
  instance: Instance | undefined,
): Promise<{ instance: Instance; host: Host }> {
  if (instance === undefined || instance.state === 'deleted') {
    throw refused.notFound('There is no instance with this id.');
  }
  if (instance.state === 'creating' || instance.state === 'deleting') throw refused.concurrency();
  const host = await records.hostOfInstance(instance.id);
  if (instance.state === 'expired') {
    throw refused.unprocessable(
      'The instance has expired: its host is gone. Delete it and create a new one.',
    );
  }
  if (instance.state === 'failed' || host === undefined) {
    throw refused.unprocessable(
      'The instance can not be used: its creation or its deletion failed. Delete it.',
    );
  }
  return { instance, host };
}

/** What the platform says now, over what it said before: it may send a part only, and empty is absent (osb-notes 21). */
function mergeContext(instance: Instance, context: JsonObject | undefined): JsonObject {
  const said = Object.entries(context ?? {}).filter(([, value]) => value !== '');
  return { ...instance.context, ...Object.fromEntries(said) };
}

/** @throws RefusedError (400) where the merged parameters are not what the target plan allows. */
function aim(
  rules: ParameterRules,
  instance: Instance,
  host: Host,
  plan: Plan,
  request: UpdateRequest,
): UpdateTarget {
  const parameters = Object.fromEntries(
    Object.entries({ ...instance.parameters, ...request.parameters }).filter(([, value]) => value !== null),
  );
  rules.checkProvision(plan, parameters);
  const { publishedPorts, egress, registries, idle, expiresAfterMs } = demandOf(plan, parameters);
  const imageVersion = request.maintenanceVersion ?? host.imageVersion;
  const sameTerm = parameters['expires_after'] === instance.parameters['expires_after'];
  return {
    planId: plan.id,
    planName: plan.name,
    parameters,
    shape: plan.shape,
    publishedPorts,
    egress,
    registries,
    idle,
    ...(imageVersion !== undefined && { imageVersion }),
    expiresAt: sameTerm
      ? (instance.expiresAt?.toISOString() ?? null)
      : expiresAfterMs === undefined
        ? null
        : new Date(Date.now() + expiresAfterMs).toISOString(),
  };
}

/** The same request again is answered as the first (osb-notes 25). */
function continueUpdate(running: Operation, target: UpdateTarget, request: UpdateRequest): string {
  const asked = (of: UpdateTarget) => ({ ...of, expiresAt: null });
  if (
    running.kind !== 'update' ||
    running.target === undefined ||
    !isDeepStrictEqual(asked(running.target), asked(target))
  ) {
    throw refused.concurrency();
  }
  if (!request.acceptsIncomplete) throw refused.asyncRequired();
  return running.id;
}

/** @throws RefusedError (422) where the host can't become that. */
function changesHost({ host, target }: Change): boolean {
  if (target.shape.diskGib < host.shape.diskGib) {
    throw refused.unprocessable(
      `The plan ${target.planName} has a smaller disk (${target.shape.diskGib} GiB) than the host has now (${host.shape.diskGib} GiB), and a disk with data can't shrink. Create a new instance of that plan.`,
    );
  }
  return !isDeepStrictEqual(
    [
      target.shape,
      target.planName,
      target.publishedPorts,
      target.egress,
      target.registries,
      target.idle,
      target.imageVersion,
    ],
    [
      host.shape,
      host.planName,
      host.publishedPorts.count,
      host.egress,
      host.registries,
      host.idle,
      host.imageVersion,
    ],
  );
}

/** Counts what the update adds before it is made, so that nobody else takes the room (migrations/011-quotas.ts). */
async function reserve(
  records: Records,
  catalog: Catalog,
  admission: AdmissionRules,
  change: Change,
): Promise<void> {
  const { instance, host, plan, target } = change;
  const more = (next: number, now: number) => Math.max(0, next - now);
  const added: Usage = {
    instances: 0,
    vcpus: more(target.shape.vcpus, host.shape.vcpus),
    memoryMib: more(target.shape.memoryMib, host.shape.memoryMib),
    diskGib: more(target.shape.diskGib, host.shape.diskGib),
    publishedPorts: more(target.publishedPorts, host.publishedPorts.count),
  };
  await records.reserve(host.id, plan.name, added);
  const ofPlan = plan.name === host.planName ? added : usageOf(plan, target.publishedPorts);
  await requireQuota(records, catalog, plan, instance.tenantId, added, ofPlan);
  await requireRoom(records, admission, added.memoryMib);
}
