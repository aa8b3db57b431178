import { setTimeout as delay } from 'node:timers/promises';
import type { Credentials } from '../core/credentials.ts';
import { ids } from './catalog.ts';
import type { Site } from './site.ts';

export interface Answer {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
}

/** A platform that gives up on no request: it asks again, another api maybe, until it has an answer. */
export interface PatientPlatform {
  create(id: string): Promise<Answer>;
  update(id: string, planId: string): Promise<Answer>;
  remove(id: string): Promise<Answer>;
  bind(id: string, bindingId: string): Promise<{ status: number; credentials: Credentials | undefined }>;
  unbind(id: string, bindingId: string): Promise<Answer>;
  /** How the last operation ended: `succeeded`, `failed`, or `gone` where there is no such instance any more. */
  settled(id: string): Promise<string>;
  /** One request to one api, asked once. */
  ask(port: number, method: string, route: string, body?: object): Promise<Answer>;
}

const retryEveryMs = 150;

/**
 * @param choose picks an api's port for a request.
 * @param patienceMs within which every request must be answered, and every operation end.
 */
export function createPlatform(site: Site, choose: () => number, patienceMs: number): PatientPlatform {
  const { username, password } = site.credentials.broker;
  const authorization = `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
  const hints = `service_id=${ids.service}&plan_id=${ids.plan}`;
  const instance = (id: string) => `/v2/service_instances/${id}`;
  const binding = (id: string, bindingId: string) => `${instance(id)}/service_bindings/${bindingId}`;

  async function ask(port: number, method: string, route: string, body?: object): Promise<Answer> {
    const response = await fetch(`http://127.0.0.1:${port}${route}`, {
      method,
      headers: {
        Authorization: authorization,
        'X-Broker-API-Version': '2.17',
        ...(body !== undefined && { 'Content-Type': 'application/json' }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(30_000),
    });
    return { status: response.status, body: (await response.json()) as Answer['body'] };
  }

  /** Connection errors and 5xx are asked again, and so is 422 ConcurrencyError, which says that it passes. */
  async function insist(method: string, route: string, body?: object): Promise<Answer> {
    const deadline = performance.now() + patienceMs;
    for (;;) {
      const answer = await ask(choose(), method, route, body).catch((error: unknown) => String(error));
      const passes =
        typeof answer === 'string' || answer.status >= 500 || answer.body['error'] === 'ConcurrencyError';
      if (!passes) return answer;
      if (performance.now() > deadline) {
        throw new Error(`${method} ${route} had no answer: ${JSON.stringify(answer)}`);
      }
      await delay(retryEveryMs);
    }
  }

  return {
    ask,
    create: (id) =>
      insist('PUT', `${instance(id)}?accepts_incomplete=true`, {
        service_id: ids.service,
        plan_id: ids.plan,
        organization_guid: 'chaos-org',
        space_guid: 'chaos-space',
      }),
    update: (id, planId) =>
      insist('PATCH', `${instance(id)}?accepts_incomplete=true`, {
        service_id: ids.service,
        plan_id: planId,
      }),
    remove: (id) => insist('DELETE', `${instance(id)}?accepts_incomplete=true&${hints}`),
    async bind(id, bindingId) {
      const { status, body } = await insist('PUT', binding(id, bindingId), {
        service_id: ids.service,
        plan_id: ids.plan,
      });
      return { status, credentials: body['credentials'] as Credentials | undefined };
    },
    unbind: (id, bindingId) => insist('DELETE', `${binding(id, bindingId)}?${hints}`),
    async settled(id) {
      const deadline = performance.now() + patienceMs;
      for (;;) {
        const { status, body } = await insist('GET', `${instance(id)}/last_operation`);
        if (status === 404 || status === 410) return 'gone';
        if (body['state'] !== 'in progress') return String(body['state']);
        if (performance.now() > deadline) {
          throw new Error(`the operation on ${id} never ended; it says: ${String(body['description'])}`);
        }
        await delay(retryEveryMs);
      }
    },
  };
}
