import { type ChildProcess, spawn } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { readSettings, type Settings } from '../../src/config/settings.ts';
import type { Credentials } from '../../src/http/osb/credentials-body.ts';
import { destroyHosts } from './destroy-hosts.ts';
import { eventually } from './eventually.ts';
import { testSlot } from './test-slot.ts';
import { processesWith } from '../../tools/lib/residue.ts';
import { makeStateDirectory } from './vm-cache.ts';

const project = path.join(import.meta.dirname, '..', '..');
export const serviceId = 'e2e-container-host';
export const planId = 'e2e-small';
export const largerPlanId = 'e2e-larger';

export interface Answer<T = Record<string, unknown>> {
  readonly status: number;
  readonly body: T;
}

/** A broker as an operator runs it: `dist/src/main.js` as a child process, with real hosts. */
export interface BrokerProcess {
  readonly stateDirectory: string;
  readonly site: () => Promise<string>;
  /** Everything that its processes have printed so far. */
  readonly output: () => string;
  readonly pid: () => number;
  /** Process id of api, gateway or worker. */
  processPid(name: string): Promise<number>;
  /** Its settings. */
  readonly settings: Settings;
  /** Port of the OSB API; gateway and management use the next two. */
  readonly firstPort: number;
  /** @param settings environment variables that override the usual ones until it ends. */
  start(settings?: Readonly<Record<string, string>>): Promise<void>;
  /** Ctrl-C. */
  interrupt(): Promise<void>;
  /** Sends SIGKILL to all its processes; hosts keep running. */
  kill(): Promise<void>;
  /** Asks the OSB API, or the management API if the route begins with `/mgmt`. */
  ask<T = Record<string, unknown>>(method: string, route: string, body?: object): Promise<Answer<T>>;
  createRoute(instanceId: string): string;
  createBody(org: string): object;
  create(instanceId: string, org: string, plan?: string): Promise<Answer>;
  bind(instanceId: string, bindingId: string, plan?: string): Promise<Answer<{ credentials: Credentials }>>;
  unbind(instanceId: string, bindingId: string): Promise<Answer>;
  /** A PATCH with these fields, to the end of its operation. */
  update(instanceId: string, change: object): Promise<Answer>;
  /** An upgrade to an image, by `maintenance_info`. */
  upgrade(instanceId: string, version: string): Promise<Answer>;
  remove(instanceId: string): Promise<Answer>;
  /** Stops the broker, destroys its remaining hosts, and removes its state. */
  dispose(): Promise<void>;
}

const portRange = (first: number, count: number) => `${first}-${first + count - 1}`;

/**
 * @param offset 0 to 4: keeps the ports and networks of test files apart.
 * @param settings environment variables that override the usual ones.
 */
export async function makeBrokerProcess(
  offset: number,
  settings: Readonly<Record<string, string>> = {},
): Promise<BrokerProcess> {
  const state = await makeStateDirectory();
  const catalog = path.join(state.directory, 'catalog.yaml');
  // Below the range of ephemeral ports, which other tests may use.
  const port = 17_100 + testSlot * 100 + offset * 10;
  const environment = {
    PATH: process.env['PATH'],
    BERTH_STATE_DIR: state.directory,
    BERTH_PORT: String(port),
    BERTH_GATEWAY_PORT: String(port + 1),
    BERTH_MGMT_PORT: String(port + 2),
    BERTH_HOST_NETWORK: `10.${150 + testSlot * 10 + offset}.0.0/24`,
    BERTH_UID_BASE: String(620_000 + testSlot * 10_000 + offset * 1000),
    BERTH_PUBLISHED_PORTS: portRange(25_000 + testSlot * 1000 + offset * 200, 200),
    BERTH_SYNC_WAIT_MS: '20000',
    BERTH_CATALOG: catalog,
    ...settings,
  };
  await writeFile(
    catalog,
    JSON.stringify({
      offerings: [
        {
          id: serviceId,
          name: 'container-host',
          description: 'A container host',
          plans: [
            {
              id: planId,
              name: 'small',
              description: 'The smallest',
              free: true,
              host: { vcpus: 1, memory_mib: 768, disk_gib: 4, published_ports: 10 },
            },
            {
              id: largerPlanId,
              name: 'larger',
              description: 'For updates; its hosts boot cold',
              free: true,
              host: { vcpus: 2, memory_mib: 1024, disk_gib: 6, published_ports: 15 },
              template: 'never',
            },
          ],
        },
      ],
    }),
  );
  let child: ChildProcess | undefined;
  let output = '';
  const site = async () => (await readFile(path.join(state.directory, 'site'), 'utf8')).trim();

  async function start(overrides: Readonly<Record<string, string>> = {}): Promise<void> {
    const from = output.length;
    const started = spawn(process.execPath, [path.join(project, 'dist', 'src', 'main.js')], {
      env: { ...environment, ...overrides },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child = started;
    for (const stream of [started.stdout, started.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => (output += text));
    }
    await eventually(
      'the broker is ready',
      () => {
        if (started.exitCode !== null) throw new Error(`the broker ended: ${output.slice(from)}`);
        return output.slice(from).includes('Berth is ready.');
      },
      { deadlineMs: 900_000, everyMs: 100 },
    );
  }

  async function ended(): Promise<void> {
    const last = child;
    await eventually('the broker has ended', () => last?.exitCode !== null || last.signalCode !== null, {
      deadlineMs: 60_000,
    });
  }

  /** Process ids of api, gateway, worker and supervisor: all that run main.js with this state directory. */
  const brokerProcesses = async () => {
    const all = await processesWith(path.join(project, 'dist', 'src', 'main.js'));
    const mine: number[] = [];
    for (const { pid } of all) {
      const variables = await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '');
      if (variables.includes(`BERTH_STATE_DIR=${state.directory}\0`)) mine.push(pid);
    }
    return mine;
  };

  async function ask<T = Record<string, unknown>>(
    method: string,
    route: string,
    body?: object,
  ): Promise<Answer<T>> {
    const users = JSON.parse(
      await readFile(path.join(state.directory, 'credentials.json'), 'utf8'),
    ) as Record<'broker' | 'mgmt', { username: string; password: string }>;
    const isMgmt = route.startsWith('/mgmt');
    const { username, password } = users[isMgmt ? 'mgmt' : 'broker'];
    const response = await fetch(`http://127.0.0.1:${isMgmt ? port + 2 : port}${route}`, {
      method,
      headers: {
        Authorization: `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`,
        'X-Broker-API-Version': '2.17',
        ...(body !== undefined && { 'Content-Type': 'application/json' }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(60_000),
    });
    return { status: response.status, body: (await response.json()) as T };
  }

  const hints = `service_id=${serviceId}&plan_id=${planId}`;
  const instance = (id: string) => `/v2/service_instances/${id}`;
  const binding = (id: string, bindingId: string) => `${instance(id)}/service_bindings/${bindingId}`;

  const createRoute = (id: string) => `${instance(id)}?accepts_incomplete=true`;
  const createBody = (org: string) => ({
    service_id: serviceId,
    plan_id: planId,
    organization_guid: org,
    space_guid: `${org}-space`,
  });

  /** Polls an operation that outlasts the request, as a platform does. */
  async function settled(answer: Answer, route: string): Promise<Answer> {
    if (answer.status !== 202) return answer;
    const operation = String(answer.body['operation']);
    return eventually(
      'the operation has ended',
      async () => {
        const polled = await ask('GET', `${route}/last_operation?operation=${operation}`);
        return polled.body['state'] === 'in progress' ? undefined : polled;
      },
      { deadlineMs: 600_000, everyMs: 250 },
    );
  }

  const update = async (id: string, change: object) =>
    settled(
      await ask('PATCH', `${instance(id)}?accepts_incomplete=true`, { service_id: serviceId, ...change }),
      instance(id),
    );

  return {
    stateDirectory: state.directory,
    site,
    output: () => output,
    pid: () => child?.pid ?? 0,
    async processPid(name) {
      for (const pid of await brokerProcesses()) {
        const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
        if (command.endsWith(`\0${name}\0`)) return pid;
      }
      throw new Error(`no ${name} is running`);
    },
    settings: readSettings(environment),
    firstPort: port,
    start,
    async interrupt() {
      child?.kill('SIGINT');
      await ended();
    },
    async kill() {
      child?.kill('SIGKILL');
      for (const pid of await brokerProcesses()) process.kill(pid, 'SIGKILL');
      await ended();
      await eventually('all processes have ended', async () => (await brokerProcesses()).length === 0);
    },
    ask,
    createRoute,
    createBody,
    create: async (id, org, plan = planId) =>
      settled(await ask('PUT', createRoute(id), { ...createBody(org), plan_id: plan }), instance(id)),
    bind: (id, bindingId, plan = planId) =>
      ask('PUT', binding(id, bindingId), { service_id: serviceId, plan_id: plan }),
    unbind: (id, bindingId) => ask('DELETE', `${binding(id, bindingId)}?${hints}`),
    update,
    upgrade: (id, version) => update(id, { maintenance_info: { version } }),
    remove: async (id) =>
      settled(await ask('DELETE', `${instance(id)}?accepts_incomplete=true&${hints}`), instance(id)),
    async dispose() {
      if (child !== undefined && child.exitCode === null && child.signalCode === null) {
        child.kill('SIGINT');
        await ended();
      }
      const name = await site().catch(() => undefined);
      if (name !== undefined) await destroyHosts(name);
      await state.remove();
    },
  };
}
