import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type { Catalog } from '../catalog/catalog.ts';
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
import type { Binding, BindingRequest, Host, Instance, JsonObject } from '../model.ts';
import type { Revocations } from '../operations/step.ts';
import type { Records, Store } from '../store.ts';
import type { InstanceReference } from './instances.ts';
import type { ParameterRules } from './parameters.ts';
import { checkHints, requirePlan } from './plan-lookup.ts';

export interface BindRequest {
  readonly platformId: string;
  readonly instanceId: string;
  readonly bindingId: string;
  readonly serviceId: string;
  readonly planId: string;
  readonly appGuid: string | undefined;
  readonly parameters: JsonObject;
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
}

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
}): Bindings {
  const { catalog, rules, store, issuer, vault, revocations, address } = parts;

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

  /** The answer to a bind whose id is taken: a retry gets the same credentials, all else is refused. */
  function answerRetry(existing: Binding, wanted: BindingRequest, host: Host): BindingView {
    if (existing.state === 'revoked') {
      throw refused.conflict('This binding id has been used and unbound. Use a new binding id.');
    }
    if (!isDeepStrictEqual(existing.request, wanted)) {
      throw refused.conflict('A binding with this id exists already, for another app or other parameters.');
    }
    return view(existing, host, false);
  }

  return {
    async bind(request) {
      const plan = requirePlan(catalog, request.serviceId, request.planId);
      rules.checkBind(request.parameters);
      const wanted: BindingRequest = { appGuid: request.appGuid, parameters: request.parameters };

      const instance = await store.records.instance(request.platformId, request.instanceId);
      checkHints(catalog, instance, request);
      const host = await requireBindable(store.records, instance);
      const early = await store.records.binding(host.instanceId, request.bindingId);
      if (early !== undefined) return answerRetry(early, wanted, host);

      const id = randomUUID();
      const createdAt = new Date();
      const issued = await issuer.issue({
        commonName: id,
        notAfter: new Date(createdAt.getTime() + plan.bindingValidDays * dayMs),
      });
      const credentials = makeCredentials(issued, issuer.serverAuthorityPem, address, host.publishedPorts);
      const sealed = vault.seal(Buffer.from(JSON.stringify(credentials)), credentialsRow(id));
      const retried = await store.transaction(async (records) => {
        // Held until the commit, so that a delete that begins now finds this binding and revokes it.
        const current = await records.instance(request.platformId, request.instanceId, 'share');
        await requireBindable(records, current);
        const isNew = await records.insertBinding({
          id,
          osbId: request.bindingId,
          instanceId: host.instanceId,
          tenantId: host.tenantId,
          serial: issued.serial,
          certificate: issued.certificatePem,
          sealedCredentials: sealed,
          createdAt,
          expiresAt: issued.expiresAt,
          request: wanted,
        });
        return isNew ? undefined : records.binding(host.instanceId, request.bindingId);
      });
      if (retried !== undefined) return answerRetry(retried, wanted, host);
      return { isNew: true, credentials, ...describe(createdAt, issued.expiresAt, host) };
    },

    async fetch(request) {
      const { records } = store;
      const instance = await records.instance(request.platformId, request.instanceId);
      checkHints(catalog, instance, request);
      const host = instance === undefined ? undefined : await records.hostOfInstance(instance.id);
      const binding =
        instance === undefined ? undefined : await records.binding(instance.id, request.bindingId);
      if (host === undefined || binding === undefined) {
        throw refused.notFound('There is no binding with this id.');
      }
      return view(binding, host, false);
    },

    async unbind(request) {
      const instance = await store.records.instance(request.platformId, request.instanceId);
      checkHints(catalog, instance, request);
      const binding =
        instance === undefined ? undefined : await store.records.binding(instance.id, request.bindingId);
      if (binding === undefined) throw refused.gone();
      await store.records.revokeBinding(binding.id);
      // Also where it was revoked before: an earlier unbind may have been killed while it waited here.
      await revocations.settled([binding.id]);
      if (binding.state === 'revoked') throw refused.gone();
    },
  };
}

function credentialsRow(bindingId: string): string {
  return `bindings/${bindingId}/credentials`;
}

/** @throws RefusedError where the instance can't be bound, or not now (osb-notes 35). */
async function requireBindable(records: Records, instance: Instance | undefined): Promise<Host> {
  if (instance === undefined || instance.state === 'deleted') {
    throw refused.notFound('There is no instance with this id.');
  }
  if (instance.state === 'creating' || instance.state === 'deleting') throw refused.concurrency();
  const host = await records.hostOfInstance(instance.id);
  if (instance.state === 'failed' || host === undefined) {
    throw refused.unprocessable(
      'The instance can not be used: its creation or its deletion failed. Delete it.',
    );
  }
  return host;
}
