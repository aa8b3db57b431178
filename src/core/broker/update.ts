import type { Plan } from '../catalog/catalog.ts';
import { findPlan } from '../catalog/lookup.ts';
import { requireDisk } from '../disk-admission.ts';
import { refused } from '../errors.ts';
import { requireMemory } from '../memory-admission.ts';
import type { Host } from '../model/host.ts';
import type { Instance } from '../model/instance.ts';
import type { JsonObject } from '../model/json.ts';
import type { Operation, UpdateTarget } from '../model/operation.ts';
import type { Usage } from '../model/usage.ts';
import type { Records } from '../ports/store.ts';
import { requireQuota, usageOf } from '../quotas.ts';
import { tenantKey } from '../tenant-key.ts';
import { beginOperation } from './begin-operation.ts';
import type { InstanceDeps } from './deps.ts';
import { checkPlatformIds, requireOffering, requirePlan } from './plan-lookup.ts';
import { withoutEmpty } from './platform-context.ts';
import type { UpdateRequest } from './update-request.ts';
import { buildTarget, changesHost, desiredState, desiredStateOf, isSameTarget } from './update-target.ts';

/**
 * Updates an instance (OSB 2.17, "Updating a Service Instance"). If the host stays as it is, the change is recorded
 * immediately, without an operation.
 * @returns the id of the operation; undefined if none was needed.
 */
export function update(deps: InstanceDeps, request: UpdateRequest): Promise<string | undefined> {
  const { catalog, rules, store, imageVersion, logger } = deps;
  const offering = requireOffering(catalog, request.serviceId);
  const requestedPlan =
    request.planId === undefined ? undefined : requirePlan(catalog, request.serviceId, request.planId);
  if (requestedPlan !== undefined) rules.checkUpdate(requestedPlan, request.parameters ?? {});

  return store.transaction(async (records) => {
    const instance = await records.instance(request.platformId, request.instanceId, 'lock');
    checkPlatformIds(catalog, instance, { serviceId: request.serviceId, planId: undefined }, logger);
    if (instance === undefined || instance.state === 'deleted') throw refused.instanceNotFound();
    const plan = requestedPlan ?? findPlan(catalog, instance.serviceId, instance.planId);
    if (plan === undefined) throw new Error(`the plan of instance ${instance.id} is not in the catalog`);
    rules.checkUpdate(plan, request.parameters ?? {});
    // An action, not a setting, so it is not stored: the next update doesn't suspend a host that was woken.
    const { sleep_now: sleepNow, ...settings } = request.parameters ?? {};
    const desired = desiredStateOf(rules, instance, plan, settings);

    const { planId, parameters, context, maintenanceVersion } = request;
    if ([planId, parameters, context, maintenanceVersion].every((field) => field === undefined)) {
      throw refused.unprocessable(
        'The request names nothing to change: neither plan_id, parameters, maintenance_info nor context.',
      );
    }
    const host = await records.hostOfInstance(instance.id);
    const hasChanges =
      desired !== undefined ||
      (maintenanceVersion !== undefined && maintenanceVersion !== host?.imageVersion);
    requireUpdatable(instance, host, hasChanges || sleepNow !== undefined);
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
    if (!hasChanges || host === undefined) {
      // Doesn't adjust the host to its plan, even if the catalog's plan has changed since (docs/osb.md 27).
      if (running !== undefined) throw refused.concurrency();
      await records.setInstanceContext(instance.id, merged);
      if (host !== undefined && sleepNow !== undefined) {
        await requestSleep(records, host, sleepNow as SleepNow);
      }
      return undefined;
    }
    const target = buildTarget(
      instance,
      host,
      plan,
      desired ?? desiredState(plan, instance.parameters),
      request,
    );
    if (running !== undefined) return continueUpdate(running, target, request);
    await records.setInstanceContext(instance.id, merged);
    if (sleepNow !== undefined) await requestSleep(records, host, sleepNow as SleepNow);
    if (!changesHost(host, target)) {
      await records.setInstanceTarget(instance.id, target);
      return undefined;
    }
    if (host.quarantined) {
      throw refused.unprocessable(
        'The host differs from its manifest and is in quarantine until the operator of the broker releases it. Ask the operator, or delete the instance.',
      );
    }
    if (!request.acceptsIncomplete) throw refused.asyncRequired();
    await reserve(deps, records, { instance, host, plan, target });
    return beginOperation(records, 'update', instance.id, { target });
  });
}

/**
 * @param hasChanges whether anything but the context changes: an expired instance can still be renamed.
 * @throws RefusedError if the instance can't be updated, or not at present.
 */
function requireUpdatable(instance: Instance, host: Host | undefined, hasChanges: boolean): void {
  if (instance.state === 'creating' || instance.state === 'deleting') throw refused.concurrency();
  if (instance.state === 'expired') {
    if (hasChanges) throw refused.instanceExpired();
    return;
  }
  if (instance.state === 'failed' || host === undefined) throw refused.instanceFailed();
}

type SleepNow = 'pause' | 'suspend';

/**
 * Asks the worker to pause or suspend the host, as an operator may; during an update the worker does it afterwards.
 * @throws RefusedError (422) if the host is not running.
 */
async function requestSleep(records: Records, host: Host, how: SleepNow): Promise<void> {
  if (!(await records.requestPower(host.id, how === 'pause' ? 'paused' : 'suspended'))) {
    throw refused.unprocessable('The host is not running, so it can not be paused or suspended.');
  }
}

/** Answers a retry like the first request (docs/osb.md 25). */
function continueUpdate(running: Operation, target: UpdateTarget, request: UpdateRequest): string {
  const isRetry =
    running.kind === 'update' && running.target !== undefined && isSameTarget(running.target, target);
  if (!isRetry) throw refused.concurrency();
  if (!request.acceptsIncomplete) throw refused.asyncRequired();
  return running.id;
}

/** Reserves what the update adds before it is made, so that no other request takes it (migrations/011-quotas.ts). */
async function reserve(
  { catalog, admission, diskAdmission }: InstanceDeps,
  records: Records,
  change: { instance: Instance; host: Host; plan: Plan; target: UpdateTarget },
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
  if (
    target.publishedPorts > host.portBlock &&
    !(await records.growPortBlock(host.id, target.publishedPorts))
  ) {
    throw refused.unprocessable(
      `parameters/published_ports: the host can publish ${host.portBlock} ports at most, since the ports after them belong to another host, and ${target.publishedPorts} are needed. Set published_ports to at most ${host.portBlock} in the same request, or create a new instance.`,
    );
  }
  await records.reserveUsage(host.id, plan.name, added);
  const ofPlan = plan.name === host.planName ? added : usageOf(plan, target.publishedPorts);
  await requireQuota(records, catalog, plan, instance.tenantId, added, ofPlan);
  await requireMemory(records, admission, {
    promisedMib: added.memoryMib,
    // An update starts the VM, whatever it changes.
    wokenMib: host.power === 'suspended' ? host.shape.memoryMib : 0,
  });
  await requireDisk(records, diskAdmission, added.diskGib);
}
