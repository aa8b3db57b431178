import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type { Catalog, Plan } from '../catalog/catalog.ts';
import { findPlan } from '../catalog/lookup.ts';
import { durationMs } from '../duration.ts';
import { refused } from '../errors.ts';
import type { Binding, BindingRequest } from '../model/binding.ts';
import type { Host } from '../model/host.ts';
import type { Instance } from '../model/instance.ts';
import type { JsonObject } from '../model/json.ts';
import type { Records } from '../ports/store.ts';
import { type BindingView, credentialsRow, newBindingView, storedBindingView } from './binding-view.ts';
import type { BindingDeps } from './deps.ts';
import { idRestMs } from './id-reuse.ts';
import { checkPlatformIds, requireOffering } from './plan-lookup.ts';
import { type Binder, requireSameOwner } from './require-same-owner.ts';

export interface BindRequest {
  readonly platformId: string;
  readonly instanceId: string;
  readonly bindingId: string;
  /** If there is a predecessor, fields that are left out are taken from it (OSB 2.17, "Binding Rotation"). */
  readonly serviceId: string | undefined;
  readonly planId: string | undefined;
  readonly appGuid: string | undefined;
  readonly parameters: JsonObject | undefined;
  readonly binder: Binder;
  readonly predecessor: string | undefined;
}

const dayMs = 24 * 3600 * 1000;

/** Issues a client certificate for a new binding; a retry gets the credentials of the first request. */
export function bind(deps: BindingDeps, request: BindRequest): Promise<BindingView> {
  const { catalog, rules, store, issuer, vault, address, renderCredentials, logger } = deps;
  return store.transaction(async (records) => {
    // Locked until the commit, so that a delete that begins now finds this binding and revokes it.
    const instance = await records.instance(request.platformId, request.instanceId, 'share');
    checkPlatformIds(catalog, instance, request, logger);
    const schemaPlan = planToValidate(catalog, instance, request);
    if (schemaPlan !== undefined) rules.checkBind(schemaPlan, request.parameters ?? {});
    if (instance === undefined || instance.state === 'deleted') throw refused.instanceNotFound();
    const existing = await records.binding(instance.id, request.bindingId);
    if (existing !== undefined && !(await records.releaseBindingId(existing.id, idRestMs))) {
      requireSame(existing, request);
      // A retry gets the first answer, even if the predecessor or the plan has changed since.
      return storedBindingView(deps, existing, await requireBindable(records, instance));
    }
    await requireSameOwner(
      records,
      requireOffering(catalog, instance.serviceId).tenant,
      instance,
      request.binder,
    );
    const resolved = await resolveRequest(records, instance.id, request);
    const lifetimeMs = validMs(planOf(catalog, instance), resolved.parameters);
    const host = await requireBindable(records, instance);

    const id = randomUUID();
    const createdAt = new Date();
    const issued = await issuer.issue({
      commonName: id,
      notAfter: new Date(createdAt.getTime() + lifetimeMs),
    });
    const credentials = renderCredentials({
      certificate: issued,
      serverCaPem: issued.serverCaPem,
      address,
      publishedPorts: host.publishedPorts,
    });
    const isNew = await records.insertBinding({
      id,
      osbId: request.bindingId,
      instanceId: instance.id,
      tenantId: host.tenantId,
      serial: issued.serial,
      caIds: issued.caIds,
      certificate: issued.certificatePem,
      sealedCredentials: vault.seal(Buffer.from(JSON.stringify(credentials)), credentialsRow(id)),
      createdAt,
      expiresAt: issued.expiresAt,
      request: resolved,
    });
    if (isNew) return newBindingView(address, host, { credentials, createdAt, expiresAt: issued.expiresAt });
    // The same request was sent twice at once, and the other one has just been committed.
    const other = await records.binding(instance.id, request.bindingId);
    if (other === undefined) throw new Error(`binding ${request.bindingId} exists, but can't be read`);
    requireSame(other, request);
    return storedBindingView(deps, other, host);
  });
}

/** @throws RefusedError (409) unless the request is a retry of the one that made this binding. */
function requireSame(existing: Binding, request: BindRequest): void {
  if (existing.state === 'revoked') {
    throw refused.conflict(
      'This binding id was used, and unbound less than an hour ago. Use a new binding id, or this one an hour after its unbind.',
    );
  }
  const { predecessor, appGuid, parameters } = existing.request;
  const inherits = request.predecessor !== undefined;
  const isSame =
    predecessor === request.predecessor &&
    ((inherits && request.appGuid === undefined) || appGuid === request.appGuid) &&
    ((inherits && request.parameters === undefined) ||
      isDeepStrictEqual(parameters, request.parameters ?? {}));
  if (!isSame) {
    throw refused.conflict('A binding with this id exists already, for another app or other parameters.');
  }
}

/**
 * The request with the fields that it inherits from its predecessor.
 * @throws RefusedError (400) if the predecessor is not a valid binding of the instance.
 */
async function resolveRequest(
  records: Records,
  instanceId: string,
  request: BindRequest,
): Promise<BindingRequest> {
  const { predecessor } = request;
  if (predecessor === undefined) {
    return { appGuid: request.appGuid, parameters: request.parameters ?? {}, predecessor: undefined };
  }
  const former = await records.binding(instanceId, predecessor);
  if (former?.state !== 'live' || former.expiresAt.getTime() <= Date.now()) {
    throw refused.badRequest(
      `predecessor_binding_id: this instance has no binding ${JSON.stringify(predecessor.slice(0, 100))} that is still valid. Bind without a predecessor.`,
    );
  }
  return {
    appGuid: request.appGuid ?? former.request.appGuid,
    parameters: request.parameters ?? former.request.parameters,
    predecessor,
  };
}

/** The plan whose schema applies to a bind: the instance's, or the one that the request names if there is no instance. */
function planToValidate(
  catalog: Catalog,
  instance: Instance | undefined,
  { serviceId, planId }: BindRequest,
): Plan | undefined {
  if (instance !== undefined && instance.state !== 'deleted') return planOf(catalog, instance);
  return serviceId === undefined || planId === undefined ? undefined : findPlan(catalog, serviceId, planId);
}

/** The plan of an existing instance. The api doesn't start with a catalog that lacks a plan in use. */
function planOf(catalog: Catalog, instance: Instance): Plan {
  const plan = findPlan(catalog, instance.serviceId, instance.planId);
  if (plan === undefined) throw new Error(`the plan of instance ${instance.id} is not in the catalog`);
  return plan;
}

/**
 * How long a certificate is valid, in milliseconds.
 * @throws RefusedError (400) if the parameters ask for more than the plan allows.
 */
function validMs(plan: Plan, parameters: JsonObject): number {
  const longestMs = plan.bindingValidDays * dayMs;
  const requested = parameters['valid_for'] as string | undefined;
  if (requested === undefined) return longestMs;
  if (durationMs(requested) > longestMs) {
    throw refused.badRequest(
      `parameters/valid_for is ${requested}: credentials of this plan are valid for at most ${plan.bindingValidDays} days.`,
    );
  }
  return durationMs(requested);
}

/** @throws RefusedError if the instance can't be bound, or not at present (docs/osb.md 35). */
async function requireBindable(records: Records, instance: Instance): Promise<Host> {
  if (instance.state === 'creating' || instance.state === 'deleting') throw refused.concurrency();
  if (instance.state === 'expired') throw refused.instanceExpired();
  const running = await records.unfinishedOperation(instance.id);
  if (running?.kind === 'update' || running?.kind === 'expire') throw refused.concurrency();
  const host = await records.hostOfInstance(instance.id);
  if (instance.state === 'failed' || host === undefined) throw refused.instanceFailed();
  return host;
}
