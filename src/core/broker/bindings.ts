import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { type Catalog, findPlan, type Plan } from '../catalog/catalog.ts';
import {
  type CertificateIssuer,
  type Credentials,
  endpoints,
  makeCredentials,
  osbTimestamp,
  type PublicAddress,
  type Vault,
} from '../credentials.ts';
import { refused } from '../errors.ts';
import { durationMs } from '../duration.ts';
import type { Logger } from '../../lib/logger.ts';
import type { Binding, BindingRequest } from '../model/binding.ts';
import type { Host } from '../model/host.ts';
import type { Instance } from '../model/instance.ts';
import type { JsonObject } from '../model/json.ts';
import type { Revocations } from '../ports/revocations.ts';
import type { Records, Store } from '../ports/store.ts';
import type { InstanceReference } from './instances.ts';
import type { ParameterRules } from './parameters.ts';
import { checkPlatformIds } from './plan-lookup.ts';
import { keepOperationsMs } from './retention.ts';

export interface BindRequest {
  readonly platformId: string;
  readonly instanceId: string;
  readonly bindingId: string;
  /** With a predecessor, what is left out is taken from it (OSB 2.17, "Binding Rotation"). */
  readonly serviceId: string | undefined;
  readonly planId: string | undefined;
  readonly appGuid: string | undefined;
  readonly parameters: JsonObject | undefined;
  readonly predecessor: string | undefined;
}

export type BindingReference = InstanceReference & { readonly bindingId: string };

/** What a platform gets for a binding. */
export interface BindingView {
  /** False where the same request had been answered before. */
  readonly isNew: boolean;
  readonly credentials: Credentials;
  readonly endpoints: readonly JsonObject[];
  readonly expiresAt: string;
  readonly renewBefore: string;
}

/** What platforms do with bindings (OSB 2.17: binding, fetching, unbinding). All of it is synchronous. */
export interface Bindings {
  bind(request: BindRequest): Promise<BindingView>;
  fetch(request: BindingReference): Promise<BindingView>;
  /** Returns once no connection with the binding's certificate is open or accepted anywhere. */
  unbind(request: BindingReference): Promise<void>;
  /** What has become of a binding, in words. */
  lastOperation(request: BindingReference): Promise<string>;
}

const noInstance = 'There is no instance with this id.';
const dayMs = 24 * 3600 * 1000;
/** The share of a certificate's life that is left when it should be renewed. */
const renewShare = 0.1;

/** Puts the broker's work on bindings together. */
export function createBindings(parts: {
  catalog: Catalog;
  rules: ParameterRules;
  store: Store;
  issuer: CertificateIssuer;
  vault: Vault;
  revocations: Revocations;
  address: PublicAddress;
  logger: Logger;
}): Bindings {
  const { catalog, rules, store, issuer, vault, revocations, address, logger } = parts;

  function view(binding: Binding, host: Host, isNew: boolean): BindingView {
    if (binding.sealedCredentials === undefined) throw refused.notFound('There is no binding with this id.');
    const credentials = JSON.parse(
      vault.open(binding.sealedCredentials, credentialsRow(binding.id)).toString('utf8'),
    ) as Credentials;
    return { isNew, credentials, ...describe(binding.createdAt, binding.expiresAt, host) };
  }

  function describe(createdAt: Date, expiresAt: Date, host: Host) {
    const lifeMs = expiresAt.getTime() - createdAt.getTime();
    return {
      endpoints: endpoints(address, host.publishedPorts),
      expiresAt: osbTimestamp(expiresAt),
      renewBefore: osbTimestamp(new Date(expiresAt.getTime() - lifeMs * renewShare)),
    };
  }

  /** A bind whose id is taken: a retry gets the same credentials, all else is refused. */
  function requireSame(existing: Binding, request: BindRequest): void {
    if (existing.state === 'revoked') {
      throw refused.conflict('This binding id has been used and unbound. Use a new binding id.');
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

  /** The binding of a request, whatever has become of it. */
  async function findBinding(request: BindingReference) {
    const instance = await store.records.instance(request.platformId, request.instanceId);
    checkPlatformIds(catalog, instance, request, logger);
    const binding =
      instance === undefined ? undefined : await store.records.binding(instance.id, request.bindingId);
    return { instance, binding };
  }

  return {
    bind: (request) =>
      store.transaction(async (records) => {
        // Held until the commit, so that a delete that begins now finds this binding and revokes it.
        const instance = await records.instance(request.platformId, request.instanceId, 'share');
        checkPlatformIds(catalog, instance, request, logger);
        const plan = planOfBind(catalog, instance, request);
        if (plan !== undefined) rules.checkBind(plan, request.parameters ?? {});
        if (instance === undefined || instance.state === 'deleted') throw refused.notFound(noInstance);
        const early = await records.binding(instance.id, request.bindingId);
        if (early !== undefined) requireSame(early, request);
        // A retry is answered as the first one was, whatever has become of its predecessor and its plan since.
        if (early !== undefined) return view(early, await requireBindable(records, instance), false);
        const wanted = await inherit(records, instance.id, request);
        const lifeMs = validMs(planOf(catalog, instance), wanted.parameters);
        const host = await requireBindable(records, instance);

        const id = randomUUID();
        const createdAt = new Date();
        const issued = await issuer.issue({
          commonName: id,
          notAfter: new Date(createdAt.getTime() + lifeMs),
        });
        const credentials = makeCredentials(issued, issued.serverAuthorityPem, address, host.publishedPorts);
        const isNew = await records.insertBinding({
          id,
          osbId: request.bindingId,
          instanceId: instance.id,
          tenantId: host.tenantId,
          serial: issued.serial,
          authorities: issued.authorities,
          certificate: issued.certificatePem,
          sealedCredentials: vault.seal(Buffer.from(JSON.stringify(credentials)), credentialsRow(id)),
          createdAt,
          expiresAt: issued.expiresAt,
          request: wanted,
        });
        if (isNew) return { isNew, credentials, ...describe(createdAt, issued.expiresAt, host) };
        // The same request, sent twice at once: the other one has just ended.
        const other = await records.binding(instance.id, request.bindingId);
        if (other === undefined) throw new Error(`binding ${request.bindingId} was there, and is not`);
        requireSame(other, request);
        return view(other, host, false);
      }),

    async fetch(request) {
      const { instance, binding } = await findBinding(request);
      const host = instance === undefined ? undefined : await store.records.hostOfInstance(instance.id);
      if (host === undefined || binding === undefined) {
        throw refused.notFound('There is no binding with this id.');
      }
      return view(binding, host, false);
    },

    async unbind(request) {
      const { binding } = await findBinding(request);
      if (binding === undefined) throw refused.gone();
      await store.records.revokeBinding(binding.id);
      // Also where it was revoked before: an earlier unbind may have been killed while it waited here.
      await revocations.settled([binding.id]);
      if (binding.state === 'revoked') throw refused.gone();
    },

    async lastOperation(request) {
      const { binding } = await findBinding(request);
      if (binding === undefined) throw refused.notFound('There is no binding with this id.');
      if (binding.revokedAt === undefined) return 'Bound';
      // The row is kept for ever, for its serial and its id: what is told of it ends like an operation's record.
      if (binding.revokedAt.getTime() < Date.now() - keepOperationsMs) throw refused.gone();
      return 'Unbound';
    },
  };
}

function credentialsRow(bindingId: string): string {
  return `bindings/${bindingId}/credentials`;
}

/** @throws RefusedError (400) where the request is neither whole nor has a predecessor to take the rest from. */
async function inherit(records: Records, instanceId: string, request: BindRequest): Promise<BindingRequest> {
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

/** The plan whose schema a bind has to keep: the instance's, or where there is none the one that was named. */
function planOfBind(
  catalog: Catalog,
  instance: Instance | undefined,
  { serviceId, planId }: BindRequest,
): Plan | undefined {
  if (instance !== undefined && instance.state !== 'deleted') return planOf(catalog, instance);
  return serviceId === undefined || planId === undefined ? undefined : findPlan(catalog, serviceId, planId);
}

/** The plan of an instance that exists. Only a catalog that has dropped it could lack it, and then nothing starts. */
function planOf(catalog: Catalog, instance: Instance): Plan {
  const plan = findPlan(catalog, instance.serviceId, instance.planId);
  if (plan === undefined) throw new Error(`the plan of instance ${instance.id} is not in the catalog`);
  return plan;
}

/**
 * How long a certificate is valid, in milliseconds.
 * @throws RefusedError (400) where more is asked for than the plan allows.
 */
function validMs(plan: Plan, parameters: JsonObject): number {
  const longestMs = plan.bindingValidDays * dayMs;
  const wanted = parameters['valid_for'] as string | undefined;
  if (wanted === undefined) return longestMs;
  if (durationMs(wanted) > longestMs) {
    throw refused.badRequest(
      `parameters/valid_for is ${wanted}: credentials of this plan are valid for ${plan.bindingValidDays} days at the most.`,
    );
  }
  return durationMs(wanted);
}

/** @throws RefusedError where the instance can't be bound, or not now (docs/osb.md 35). */
async function requireBindable(records: Records, instance: Instance): Promise<Host> {
  if (instance.state === 'creating' || instance.state === 'deleting') throw refused.concurrency();
  if (instance.state === 'expired') {
    throw refused.unprocessable(
      'The instance has expired: its host is gone. Delete it and create a new one.',
    );
  }
  const running = await records.unfinishedOperation(instance.id);
  if (running?.kind === 'update' || running?.kind === 'expire') throw refused.concurrency();
  const host = await records.hostOfInstance(instance.id);
  if (instance.state === 'failed' || host === undefined) {
    throw refused.unprocessable(
      'The instance can not be used: its creation or its deletion failed. Delete it.',
    );
  }
  return host;
}
