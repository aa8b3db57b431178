import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { type BrokerCredentials, credentialsPath } from '../../src/config/secrets.ts';
import type { Settings } from '../../src/config/settings.ts';
import type { Credentials } from '../../src/http/osb/credentials-body.ts';

/** The broker can't be reached or refuses; the message says what to do. */
export class PlatformError extends Error {
  override readonly name = 'PlatformError';
}

interface Answer {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
}

const requestTimeoutMs = 60_000;
const pollEveryMs = 500;
const longestWaitMs = 600_000;

/** A platform such as Cloud Foundry: creates, binds, polls and deletes over the OSB API. */
export interface Platform {
  readonly offering: { readonly serviceId: string; readonly planId: string; readonly planName: string };
  /** Whether the broker reports simulated hosts. */
  readonly simulated: boolean;
  /**
   * Creates an instance and waits until it is ready.
   * @param planId the first plan of the catalog by default.
   * @returns whether the request itself was answered 201.
   */
  create(instanceId: string, org: string, planId?: string): Promise<{ synchronous: boolean }>;
  /** Changes an instance to another plan and waits until it has that plan. */
  update(instanceId: string, planId: string): Promise<void>;
  bind(instanceId: string, bindingId: string, planId?: string): Promise<Credentials>;
  /** The current description of last_operation. */
  progress(instanceId: string): Promise<string>;
  unbind(instanceId: string, bindingId: string): Promise<void>;
  remove(instanceId: string): Promise<void>;
  hosts(): Promise<
    readonly {
      /** Missing while the host is parked in the pool. */
      instance?: string;
      host: string;
      state: string;
      power: string;
      /** Why its VM is stopped although its power is running. */
      halted?: string;
      plan: string;
      engine?: string;
      publishedPorts: string;
    }[]
  >;
  /** Requests that a host be paused, suspended or woken. */
  setPower(host: string, power: 'running' | 'paused' | 'suspended'): Promise<void>;
}

/**
 * Connects to the broker that runs with these settings on this node.
 * @throws PlatformError if none runs.
 */
export async function connectPlatform(settings: Settings): Promise<Platform> {
  if (settings.tlsCertificateFile !== undefined) {
    throw new PlatformError(
      'the demo and the bench speak plain HTTP to the OSB API: start the broker without BERTH_TLS_CERT_FILE for them',
    );
  }
  const file = credentialsPath(settings);
  const text = await readFile(file, 'utf8').catch((cause: unknown) => {
    throw new PlatformError(
      `${file} can't be read: start a broker first (npm start), and run this as the same user with the same settings`,
      { cause },
    );
  });
  const { broker, mgmt } = JSON.parse(text) as BrokerCredentials;

  async function ask(
    port: number,
    user: { username: string; password: string },
    method: string,
    route: string,
    body?: object,
  ): Promise<Answer> {
    const response = await fetch(`http://127.0.0.1:${port}${route}`, {
      method,
      headers: {
        Authorization: `Basic ${Buffer.from(`${user.username}:${user.password}`).toString('base64')}`,
        'X-Broker-API-Version': '2.17',
        ...(body !== undefined && { 'Content-Type': 'application/json' }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(requestTimeoutMs),
    }).catch((cause: unknown) => {
      throw new PlatformError(`no broker answers on port ${port}: start one with npm start`, { cause });
    });
    return { status: response.status, body: (await response.json()) as Answer['body'] };
  }
  const osb = (method: string, route: string, body?: object) =>
    ask(settings.port, broker, method, route, body);

  const expectStatus = (answer: Answer, ...wanted: number[]): Answer => {
    if (wanted.includes(answer.status)) return answer;
    const { description } = answer.body;
    const message = typeof description === 'string' ? description : JSON.stringify(answer.body);
    throw new PlatformError(`the broker answered ${answer.status}: ${message}`);
  };

  /** Polls until the operation has ended if the answer was 202. */
  async function waitForOperation(answer: Answer, route: string): Promise<void> {
    if (answer.status !== 202) return;
    const deadline = performance.now() + longestWaitMs;
    for (;;) {
      const { body } = expectStatus(
        await osb('GET', `${route}/last_operation?operation=${String(answer.body['operation'])}`),
        200,
      );
      if (body['state'] === 'succeeded') return;
      if (body['state'] === 'failed') throw new PlatformError(String(body['description']));
      if (performance.now() > deadline) throw new PlatformError('the operation did not end in time');
      await delay(pollEveryMs);
    }
  }

  const health = await ask(settings.mgmtPort, mgmt, 'GET', '/mgmt/health');
  const catalog = expectStatus(await osb('GET', '/v2/catalog'), 200).body as {
    services: { id: string; plans: { id: string; name: string }[] }[];
  };
  const [service] = catalog.services;
  const [plan] = service?.plans ?? [];
  if (service === undefined || plan === undefined) throw new PlatformError('the catalog is empty');
  const ids = { service_id: service.id, plan_id: plan.id };
  const hints = new URLSearchParams(ids).toString();
  const instance = (id: string) => `/v2/service_instances/${id}`;
  const binding = (id: string, bindingId: string) => `${instance(id)}/service_bindings/${bindingId}`;

  return {
    offering: { serviceId: service.id, planId: plan.id, planName: plan.name },
    simulated: health.body['simulated'] === true,
    async create(id, org, planId = plan.id) {
      const body = { ...ids, plan_id: planId, organization_guid: org, space_guid: `${org}-space` };
      const answer = await osb('PUT', `${instance(id)}?accepts_incomplete=true`, body);
      await waitForOperation(expectStatus(answer, 201, 202), instance(id));
      return { synchronous: answer.status === 201 };
    },
    async update(id, planId) {
      const body = { service_id: service.id, plan_id: planId };
      const answer = await osb('PATCH', `${instance(id)}?accepts_incomplete=true`, body);
      await waitForOperation(expectStatus(answer, 200, 202), instance(id));
    },
    async bind(id, bindingId, planId = plan.id) {
      const body = { ...ids, plan_id: planId };
      const answer = expectStatus(await osb('PUT', binding(id, bindingId), body), 201);
      return answer.body['credentials'] as Credentials;
    },
    async progress(id) {
      const answer = expectStatus(await osb('GET', `${instance(id)}/last_operation`), 200);
      return String(answer.body['description']);
    },
    async unbind(id, bindingId) {
      expectStatus(await osb('DELETE', `${binding(id, bindingId)}?${hints}`), 200);
    },
    async remove(id) {
      const answer = await osb('DELETE', `${instance(id)}?accepts_incomplete=true&${hints}`);
      await waitForOperation(expectStatus(answer, 200, 202, 410), instance(id));
    },
    async setPower(host, power) {
      expectStatus(await ask(settings.mgmtPort, mgmt, 'PUT', `/mgmt/hosts/${host}/power/${power}`), 202);
    },
    async hosts() {
      const answer = expectStatus(await ask(settings.mgmtPort, mgmt, 'GET', '/mgmt/hosts'), 200);
      return answer.body['hosts'] as Awaited<ReturnType<Platform['hosts']>>;
    },
  };
}
