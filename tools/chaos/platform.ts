import { setTimeout as delay } from 'node:timers/promises';
import type { Credentials } from '../../src/http/osb/credentials-body.ts';
import { type Answer, type ApiClient, type ApiClientOptions, createApiClient } from './api-client.ts';
import { createBody, ids } from './catalog.ts';
import type { ChaosInstallation } from './installation.ts';

/** The body of an update request. */
export interface Change {
  readonly plan_id?: string;
  readonly parameters?: Readonly<Record<string, unknown>>;
  readonly maintenance_info?: { readonly version: string };
}

/** A platform that retries every request, possibly with another api, until it has a definite answer. */
export interface PatientPlatform {
  create(id: string): Promise<Answer>;
  update(id: string, change: Change): Promise<Answer>;
  remove(id: string): Promise<Answer>;
  /** @param predecessor the binding that this one replaces. */
  bind(
    id: string,
    bindingId: string,
    predecessor?: string,
  ): Promise<{ status: number; credentials: Credentials | undefined }>;
  unbind(id: string, bindingId: string): Promise<Answer>;
  /** How the last operation ended: `succeeded`, `failed`, or `gone` if the instance does not exist any more. */
  settled(id: string): Promise<string>;
  /** One request to one api, without retries. */
  readonly ask: ApiClient['ask'];
}

const pollEveryMs = 150;

export function createPlatform(site: ChaosInstallation, options: ApiClientOptions): PatientPlatform {
  const { ask, askUntilAnswered: insist } = createApiClient(site.credentials.broker, options);
  const hints = `service_id=${ids.service}&plan_id=${ids.plan}`;
  const instance = (id: string) => `/v2/service_instances/${id}`;
  const binding = (id: string, bindingId: string) => `${instance(id)}/service_bindings/${bindingId}`;

  return {
    ask,
    create: (id) => insist('PUT', `${instance(id)}?accepts_incomplete=true`, createBody(id)),
    update: (id, change) =>
      insist('PATCH', `${instance(id)}?accepts_incomplete=true`, { service_id: ids.service, ...change }),
    remove: (id) => insist('DELETE', `${instance(id)}?accepts_incomplete=true&${hints}`),
    async bind(id, bindingId, predecessor) {
      const { status, body } = await insist('PUT', binding(id, bindingId), {
        service_id: ids.service,
        plan_id: ids.plan,
        ...(predecessor !== undefined && { predecessor_binding_id: predecessor }),
      });
      return { status, credentials: body['credentials'] as Credentials | undefined };
    },
    unbind: (id, bindingId) => insist('DELETE', `${binding(id, bindingId)}?${hints}`),
    async settled(id) {
      const deadline = performance.now() + options.patienceMs;
      for (;;) {
        const { status, body } = await insist('GET', `${instance(id)}/last_operation`);
        if (status === 404 || status === 410) return 'gone';
        if (body['state'] !== 'in progress') return String(body['state']);
        if (performance.now() > deadline) {
          throw new Error(
            `the operation on ${id} never ended; its description: ${String(body['description'])}`,
          );
        }
        await delay(pollEveryMs);
      }
    },
  };
}
