import { writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Credentials } from '../../src/http/osb/credentials-body.ts';
import { vmPids } from '../../tools/bench/lib/proc.ts';
import { busyboxTree, type Docker, dockerFor } from '../../tools/lib/docker.ts';
import { type BrokerProcess, makeBrokerProcess, planId, serviceId } from '../support/broker-process.ts';
import { eventually } from '../support/eventually.ts';
import { sleepNow } from './support/sleep.ts';

const image = 'busybox:test';
const plans = {
  small: { id: planId, vcpus: 1, memory_mib: 768, disk_gib: 4 },
  medium: { id: 'e2e-medium', vcpus: 2, memory_mib: 1536, disk_gib: 6 },
  large: { id: 'e2e-large', vcpus: 4, memory_mib: 2560, disk_gib: 8 },
  // As small, with a disk that large hosts can be updated to: a disk with data can't shrink.
  slim: { id: 'e2e-slim', vcpus: 1, memory_mib: 768, disk_gib: 8 },
} as const;
type PlanName = keyof typeof plans;

/** Share that a guest's kernel and file system leave at least; of each plan more than the plan before has. */
const usable = 0.8;

/** Numbers lines, and answers each connection with what it sends. */
const program = `/bin/nc -ll -p 80 -e /bin/cat &
  trap exit TERM; i=0; while :; do echo $i; i=$((i + 1)); sleep 0.1; done`;

/** A host that is updated to larger plans while it runs: nothing in it notices. */
describe('growth', { timeout: 1_200_000 }, () => {
  let broker: BrokerProcess;
  let credentials: Credentials;
  let docker: Docker;
  const cleanUp: (() => Promise<void>)[] = [];

  beforeAll(async () => {
    broker = await makeBrokerProcess(3);
    cleanUp.push(() => broker.dispose());
    await writeFile(
      path.join(broker.stateDirectory, 'catalog.yaml'),
      JSON.stringify({
        offerings: [
          {
            ...{ id: serviceId, name: 'container-host', description: 'A container host' },
            plans: Object.entries(plans).map(([name, { id, ...size }]) => ({
              ...{ id, name, description: `The plan ${name}`, free: true, idle: 'run' },
              host: { ...size, published_ports: 2 },
            })),
          },
        ],
      }),
    );
    await broker.start();
    expect((await broker.create('host', 'org')).status).toBeLessThan(300);
    ({ credentials } = (await broker.bind('host', 'binding')).body);
    docker = await dockerFor(credentials);
    cleanUp.push(() => docker.dispose());
    const imported = await docker.run(['import', '-', image], await busyboxTree());
    expect(imported.code, imported.stderr).toBe(0);
    const [port = ''] = credentials.published_ports.split('-');
    await succeeds(
      ...['run', '-d', '--name', 'counter', '--restart', 'always', '-p', `${port}:80`],
      ...[image, '/bin/sh', '-c', program],
    );
  }, 1_200_000);

  afterAll(async () => {
    for (const act of cleanUp.reverse()) await act();
  }, 300_000);

  /** Runs a docker command that has to succeed, and returns its output. */
  const succeeds = async (...args: readonly string[]): Promise<string> => {
    const { code, stdout, stderr } = await docker.run(args);
    expect(code, `docker ${args.join(' ')}: ${stderr}`).toBe(0);
    return stdout.trim();
  };
  const vms = async () => vmPids(await broker.site());
  const update = async (plan: PlanName) => {
    const { status, body } = await broker.update('host', { plan_id: plans[plan].id });
    expect(status, JSON.stringify(body)).toBe(200);
    expect(body['state'], JSON.stringify(body)).not.toBe('failed');
  };
  /** Differs if the container was restarted. */
  const life = () =>
    succeeds(
      'inspect',
      '--format',
      '{{.State.StartedAt}} {{.State.Pid}} {{.RestartCount}} {{.State.Running}}',
      'counter',
    );

  /** That engine and file system have the plan's size now: nothing is waited for. */
  async function expectSizeOf(name: PlanName): Promise<void> {
    const plan = plans[name];
    const info = await succeeds('info', '--format', '{{.NCPU}} {{.MemTotal}}');
    const [processors, memoryBytes = Number.NaN] = info.split(' ').map(Number);
    expect(processors).toBe(plan.vcpus);
    const memoryMib = memoryBytes / 1024 ** 2;
    expect(memoryMib).toBeLessThan(plan.memory_mib);
    expect(memoryMib).toBeGreaterThan(usable * plan.memory_mib);
    // A container's root is in /var/lib/docker.
    const df = await succeeds('exec', 'counter', '/bin/busybox', 'df', '-m', '/');
    const diskGib = Number(/\s(\d+)\s+\d+\s+\d+\s+\d+%/.exec(df)?.[1]) / 1024;
    expect(diskGib, df).toBeLessThan(plan.disk_gib);
    expect(diskGib, df).toBeGreaterThan(usable * plan.disk_gib);
  }

  /** The container's output, as `docker logs -f` prints it. */
  function followLog(...options: readonly string[]) {
    const client = docker.follow(['logs', '-f', '--timestamps', ...options, 'counter']);
    cleanUp.push(() => Promise.resolve(void client.kill('SIGKILL')));
    let seen = '';
    client.stdout.on('data', (chunk: Buffer) => (seen += chunk.toString()));
    /** Of complete lines. */
    const numbers = () => [...seen.matchAll(/^\S+Z (\d+)$(?=\n)/gm)].map(([, number]) => Number(number));
    return {
      client,
      numbers,
      /** Waits for a line that was written after this call. */
      async continues() {
        const now = numbers().length;
        // The first of them may have been on its way.
        await eventually('the container writes', () => numbers().length > now + 20, { deadlineMs: 60_000 });
      },
    };
  }

  async function connectToPort() {
    const { hostname } = new URL(credentials.docker_host.replace('tcp:', 'http:'));
    const port = Number(credentials.published_ports.split('-')[0]);
    const socket = await eventually('the port answers', () => connected(port, hostname));
    cleanUp.push(() => Promise.resolve(void socket.destroy()));
    let seen = '';
    socket.on('data', (chunk: Buffer) => (seen += chunk.toString()));
    return {
      socket,
      async echoes(text: string) {
        socket.write(`${text}\n`);
        await eventually(`${text} has come back`, () => seen.endsWith(`${text}\n`), { deadlineMs: 60_000 });
      },
    };
  }

  it('update to larger plans: log stream, connection and container continue, and the new size is there', async () => {
    await expectSizeOf('small');
    const before = { life: await life(), vms: await vms() };
    expect(before.life).toMatch(/ 0 true$/);
    const log = followLog();
    // Both programs of the container run then.
    await log.continues();
    const connection = await connectToPort();
    await connection.echoes('small');
    for (const plan of ['medium', 'large'] as const) {
      await update(plan);
      await expectSizeOf(plan);
      await connection.echoes(plan);
      await log.continues();
      expect({ life: await life(), vms: await vms() }).toEqual(before);
    }
    expect(connection.socket.closed).toBe(false);
    expect([log.client.exitCode, log.client.signalCode]).toEqual([null, null]);
    const numbers = log.numbers();
    expect(numbers).toEqual(numbers.map((_, index) => index));
    log.client.kill('SIGKILL');
    connection.socket.destroy();
  });

  it('update to larger plans: a container gets more memory than the former plan had', async () => {
    const mib = plans.medium.memory_mib + 100;
    await succeeds(
      ...['run', '--rm', '--network', 'none', '--tmpfs', `/fill:size=${mib + 1}m`, image],
      ...['/bin/busybox', 'dd', 'if=/dev/zero', 'of=/fill/data', 'bs=1M', `count=${mib}`],
    );
  });

  it('suspension of a host that has grown: it wakes with its size, and its containers continue', async () => {
    const before = await life();
    await sleepNow(broker, 'host', 'suspend');
    expect(await vms()).toEqual([]);
    await expectSizeOf('large');
    expect(await life()).toBe(before);
    // Only lines that are written from now on.
    await followLog('--tail', '0').continues();
  });

  it('SIGKILL of the VM of a host that has grown: it is restarted with its size and its containers', async () => {
    // A killed VM loses what was not written yet.
    await succeeds('exec', 'counter', '/bin/busybox', 'sync');
    const before = await life();
    // Not 0, which would be the test's own process group.
    const [pid = Number.NaN] = await vms();
    process.kill(pid, 'SIGKILL');
    await eventually('the VM is restarted', async () => (await vms()).some((one) => one !== pid), {
      deadlineMs: 60_000,
    });
    await eventually(
      'the container runs again',
      async () => {
        const { code, stdout } = await docker.run(['ps', '--format', '{{.Names}}']);
        return code === 0 && stdout === 'counter\n';
      },
      { deadlineMs: 400_000, everyMs: 1_000 },
    );
    await expectSizeOf('large');
    expect(await life()).not.toBe(before);
  });

  it('update to a smaller plan: restarts the VM, says so, and the containers run again', async () => {
    const before = await vms();
    const said = new Set<unknown>();
    const operation = { hasEnded: false };
    const updated = update('slim').finally(() => (operation.hasEnded = true));
    while (!operation.hasEnded) {
      const { body } = await broker.ask('GET', '/v2/service_instances/host/last_operation');
      said.add(body['description']);
      await delay(50);
    }
    await updated;
    expect([...said].join('\n')).toMatch(/\brestarting\b/i);
    expect(await vms()).not.toEqual(before);
    await expectSizeOf('slim');
    expect(await life()).toMatch(/ true$/);
  });
});

function connected(port: number, host: string): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect(port, host);
    socket.once('connect', () => {
      resolve(socket);
    });
    socket.once('error', () => {
      resolve(undefined);
    });
  });
}
