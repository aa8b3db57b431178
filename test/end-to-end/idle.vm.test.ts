import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { busyboxTree, type Docker, dockerFor } from '../../tools/lib/docker.ts';
import { connectPlatform } from '../../tools/lib/platform.ts';
import { type BrokerProcess, makeBrokerProcess } from '../support/broker-process.ts';
import { eventually } from '../support/eventually.ts';

/** A guest whose clock was not set would be behind by at least this time, in milliseconds. */
const frozenForMs = 20_000;

/** The idle policy on real VMs. */
describe('idle hosts', { timeout: 2_400_000 }, () => {
  let broker: BrokerProcess;
  let busy: Docker;
  let idle: Docker;
  const cleanUp: (() => Promise<void>)[] = [];

  beforeAll(async () => {
    broker = await makeBrokerProcess(4, { BERTH_IDLE_AFTER_SECONDS: '5' });
    cleanUp.push(() => broker.dispose());
    await broker.start();
  }, 1_200_000);

  afterAll(async () => {
    for (const act of cleanUp.reverse()) await act();
  }, 300_000);

  const make = async (name: string): Promise<Docker> => {
    expect((await broker.create(name, `org-of-${name}`)).status).toBeLessThan(300);
    const bound = await broker.bind(name, `binding-of-${name}`);
    expect(bound.status).toBe(201);
    const docker = await dockerFor(bound.body.credentials);
    cleanUp.push(() => docker.dispose());
    return docker;
  };
  const powerOf = async (name: string) => {
    const platform = await connectPlatform(broker.settings);
    return (await platform.hosts()).find(({ instance }) => instance === name)?.power;
  };
  const isPaused = (name: string) =>
    eventually(`${name} is paused`, async () => (await powerOf(name)) === 'paused', {
      deadlineMs: 240_000,
      everyMs: 200,
    });

  // Fails if the policy ignores the number of running containers.
  it('idle policy: pauses a host, but not one that runs a container', async () => {
    // In this order: when the second one is paused, the first one has been checked and been quiet for longer.
    busy = await make('busy');
    idle = await make('idle');
    expect((await busy.run(['import', '-', 'busybox:test'], await busyboxTree())).code).toBe(0);
    const run = await busy.run(['run', '-d', '--name', 'stays', 'busybox:test', '/bin/sleep', '10000']);
    expect(run.code, run.stderr).toBe(0);
    expect((await idle.run(['version'])).code).toBe(0);
    await isPaused('idle');
    expect(await powerOf('busy')).toBe('running');
  });

  // Fails if a woken host is not identified, which sets its clock.
  it('wake: the guest has the right time', async () => {
    expect(await powerOf('idle')).toBe('paused');
    const pausedAt = Date.now();
    await eventually('the clock would be wrong', () => Date.now() - pausedAt > frozenForMs, {
      deadlineMs: 2 * frozenForMs,
      everyMs: 250,
    });
    const asked = Date.now();
    const { code, stdout, stderr } = await idle.run(['info', '--format', '{{.SystemTime}}']);
    expect(code, stderr).toBe(0);
    const guestTime = Date.parse(stdout.trim());
    // Compared with the times before and after the request: the guest's clock is set with a precision of about a second.
    expect(guestTime).toBeGreaterThan(asked - frozenForMs / 2);
    expect(guestTime).toBeLessThan(Date.now() + frozenForMs / 2);
  });

  it('idle policy: pauses a host once its last container has ended', async () => {
    expect(await powerOf('busy')).toBe('running');
    expect((await busy.run(['rm', '-f', 'stays'])).code).toBe(0);
    await isPaused('busy');
    expect((await busy.run(['image', 'inspect', 'busybox:test'])).code).toBe(0);
  });
});
