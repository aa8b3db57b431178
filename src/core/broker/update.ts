import { isDeepStrictEqual } from 'node:util';
import { requireMemory } from '../admission.ts';
import type { AdmissionRules } from '../model/node-memory.ts';
import type { Usage } from '../model/usage.ts';
import type { Catalog, Plan } from '../catalog/catalog.ts';
import { findPlan } from '../catalog/lookup.ts';
import { refused } from '../errors.ts';
import type { Logger } from '../../lib/logger.ts';
import type { Host } from '../model/host.ts';
import type { Instance } from '../model/instance.ts';
import type { JsonObject } from '../model/json.ts';
import type { Operation, UpdateTarget } from '../model/operation.ts';
import { requireQuota, usageOf } from '../quotas.ts';
import type { Records, Store } from '../ports/store.ts';
import { tenantKey } from '../tenant-key.ts';
import { withoutEmpty } from './context.ts';
import { type Demand, demandOf, type ParameterRules } from './parameters.ts';
import { checkPlatformIds, requireOffering, requirePlan } from './plan-lookup.ts';
import { beginOperation } from './begin-operation.ts';

export interface UpdateRequest {
  readonly platformId: string;
  readonly instanceId: string;
  readonly serviceId: string;
  readonly planId: string | undefined;
  /** Undefined leaves them; of those that are given, null takes one back (docs/osb.md 24). */
  readonly parameters: JsonObject | undefined;
  readonly context: JsonObject | undefined;
  /** Undefined leaves the host's image as it is (docs/osb.md 21). */
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
      const instance = await records.instance(request.platformId, request.instanceId, 'lock');
      checkPlatformIds(catalog, instance, { serviceId: request.serviceId, planId: undefined }, logger);
      if (instance === undefined || instance.state === 'deleted') {
        throw refused.notFound('There is no instance with this id.');
      }
      const plan = planned ?? findPlan(catalog, instance.serviceId, instance.planId);
      if (plan === undefined) throw new Error(`the plan of instance ${instance.id} is not in the catalog`);
      rules.checkUpdate(plan, request.parameters ?? {});
      // Done, and not kept: a host that has been woken is not put to sleep by the next update.
      const { sleep_now: sleepNow, ...kept } = request.parameters ?? {};
      const wish = wishOf(rules, instance, plan, kept);

      const { planId, parameters, context, maintenanceVersion } = request;
      if ([planId, parameters, context, maintenanceVersion].every((field) => field === undefined)) {
        throw refused.unprocessable(
          'The request names nothing to change: neither plan_id, parameters, maintenance_info nor context.',
        );
      }
      const host = await records.hostOfInstance(instance.id);
      const changes =
        wish !== undefined || (maintenanceVersion !== undefined && maintenanceVersion !== host?.imageVersion);
      requireUpdatable(instance, host, changes || sleepNow !== undefined);
      const merged = { ...instance.context, ...withoutEmpty(context ?? {}) };
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

      const running = await records.unfinishedOperation(instance.id);
      if (!changes || host === undefined) {
        // The host's own plan is left alone, though the catalog may say something else of it by now (docs/osb.md 27).
        if (running !== undefined) throw refused.concurrency();
        await records.setInstanceContext(instance.id, merged);
        if (host !== undefined && sleepNow !== undefined)
          await putToSleep(records, host, sleepNow as SleepNow);
        return undefined;
      }
      const target = aim(instance, host, plan, wish ?? wishFor(plan, instance.parameters), request);
      if (running !== undefined) return continueUpdate(running, target, request);
      await records.setInstanceContext(instance.id, merged);
      const change: Change = { instance, host, plan, target };
      if (sleepNow !== undefined) await putToSleep(records, host, sleepNow as SleepNow);
      if (!changesHost(change)) {
        await records.setInstanceTarget(instance.id, target);
        return undefined;
      }
      if (host.quarantined) {
        throw refused.unprocessable(
          'The host was found altered, and is left as it is until the operator of the broker has looked into it. Ask the operator, or delete the instance.',
        );
      }
      if (!request.acceptsIncomplete) throw refused.asyncRequired();
      await reserve(records, catalog, admission, change);
      return beginOperation(records, 'update', instance.id, { target });
    });
  };
}

/**
 * @param changes whether anything but the context is to change: an instance that has expired can still be renamed.
 * @throws RefusedError where the instance can't be updated, or not now.
 */
function requireUpdatable(instance: Instance, host: Host | undefined, changes: boolean): void {
  if (instance.state === 'creating' || instance.state === 'deleting') throw refused.concurrency();
  if (instance.state === 'expired') {
    if (!changes) return;
    throw refused.unprocessable(
      'The instance has expired: its host is gone. Delete it and create a new one.',
    );
  }
  if (instance.state === 'failed' || host === undefined) {
    throw refused.unprocessable(
      'The instance can not be used: its creation or its deletion failed. Delete it.',
    );
  }
}

/** Parameters as they are to be, and what they ask of the host. */
interface Wish {
  readonly parameters: JsonObject;
  readonly demand: Demand;
}

/**
 * What a request makes of plan and parameters; undefined where both stay as they are.
 * @throws RefusedError (400) where the merged parameters are not what the target plan allows.
 */
function wishOf(
  rules: ParameterRules,
  instance: Instance,
  plan: Plan,
  changed: JsonObject,
): Wish | undefined {
  const parameters = Object.fromEntries(
    Object.entries({ ...instance.parameters, ...changed }).filter(([, value]) => value !== null),
  );
  if (plan.id === instance.planId && isDeepStrictEqual(parameters, instance.parameters)) return undefined;
  rules.checkProvision(plan, parameters);
  return wishFor(plan, parameters);
}

const wishFor = (plan: Plan, parameters: JsonObject): Wish => ({
  parameters,
  demand: demandOf(plan, parameters),
});

function aim(
  instance: Instance,
  host: Host,
  plan: Plan,
  { parameters, demand }: Wish,
  request: UpdateRequest,
): UpdateTarget {
  const { publishedPorts, egress, registries, idle, expiresAfterMs } = demand;
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

type SleepNow = 'pause' | 'suspend';

/**
 * Asks the worker for it, as an operator may; where an update begins, it comes after that.
 * @throws RefusedError (422) where the host does not run.
 */
async function putToSleep(records: Records, host: Host, how: SleepNow): Promise<void> {
  if (!(await records.requestPower(host.id, how === 'pause' ? 'paused' : 'suspended')))
    throw refused.unprocessable('The host does not run, so it can not be put to sleep.');
}

/** The same request again is answered as the first (docs/osb.md 25). */
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
  await records.reserveUsage(host.id, plan.name, added);
  const ofPlan = plan.name === host.planName ? added : usageOf(plan, target.publishedPorts);
  await requireQuota(records, catalog, plan, instance.tenantId, added, ofPlan);
  await requireMemory(records, admission, {
    promisedMib: added.memoryMib,
    // Its machine is started, whatever changes.
    wokenMib: host.power === 'suspended' ? host.shape.memoryMib : 0,
  });
}
