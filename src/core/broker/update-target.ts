import { isDeepStrictEqual } from 'node:util';
import type { Plan } from '../catalog/catalog.ts';
import { refused } from '../errors.ts';
import type { Host } from '../model/host.ts';
import type { Instance } from '../model/instance.ts';
import type { JsonObject } from '../model/json.ts';
import type { UpdateTarget } from '../model/operation.ts';
import { requestedSettings, type RequestedSettings } from './requested-settings.ts';
import type { ParameterRules } from './parameter-rules.ts';
import type { UpdateRequest } from './update-request.ts';

/** The parameters that an instance gets, and what they demand of the host. */
interface DesiredState {
  readonly parameters: JsonObject;
  readonly demand: RequestedSettings;
}

/**
 * What a request changes the plan and the parameters to; undefined if both stay as they are.
 * @throws RefusedError (400) if the target plan doesn't allow the merged parameters.
 */
export function desiredStateOf(
  rules: ParameterRules,
  instance: Instance,
  plan: Plan,
  changed: JsonObject,
): DesiredState | undefined {
  const parameters = Object.fromEntries(
    Object.entries({ ...instance.parameters, ...changed }).filter(([, value]) => value !== null),
  );
  if (plan.id === instance.planId && isDeepStrictEqual(parameters, instance.parameters)) return undefined;
  rules.checkMerged(plan, parameters, changed);
  return desiredState(plan, parameters, changed);
}

export function desiredState(plan: Plan, parameters: JsonObject, changed = parameters): DesiredState {
  return { parameters, demand: requestedSettings(plan, parameters, changed) };
}

export function buildTarget(
  instance: Instance,
  host: Host,
  plan: Plan,
  { parameters, demand }: DesiredState,
  request: UpdateRequest,
): UpdateTarget {
  const { publishedPorts, egress, registries, idle, expiresAfterMs } = demand;
  const imageVersion = request.maintenanceVersion ?? host.imageVersion;
  const sameExpiry = parameters['expires_after'] === instance.parameters['expires_after'];
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
    expiresAt: sameExpiry
      ? (instance.expiresAt?.toISOString() ?? null)
      : expiresAfterMs === undefined
        ? null
        : new Date(Date.now() + expiresAfterMs).toISOString(),
  };
}

/** Whether two targets come from the same request: an expiry counts from the request, so it is not compared. */
export function isSameTarget(one: UpdateTarget, other: UpdateTarget): boolean {
  return isDeepStrictEqual({ ...one, expiresAt: null }, { ...other, expiresAt: null });
}

/**
 * Whether the host itself has to change.
 * @throws RefusedError (422) if the host can't be changed to the target.
 */
export function changesHost(host: Host, target: UpdateTarget): boolean {
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
