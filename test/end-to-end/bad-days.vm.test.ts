import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Credentials } from '../../src/http/osb/credentials-body.ts';
import { type BrokerProcess, makeBrokerProcess } from '../support/broker-process.ts';
import { busyboxTree, type Docker, dockerFor } from '../../tools/lib/docker.ts';
import { eventually } from '../support/eventually.ts';
import { processesWith, residueOf } from '../../tools/lib/residue.ts';

const execute = promisify(execFile);

/** What a broker, a virtual machine and a whole machine do on bad days: one host lives through all of them. */
describe('on a bad day', { timeout: 2_400_000 }, () => {
  const cleanUp: (() => Promise<void>)[] = [];
  let broker: BrokerProcess;
  let credentials: Credentials;
  let docker: Docker;

  const containers = async () => (await docker.run(['ps', '-a', '--format', '{{.Names}} {{.State}}'])).stdout;
  const engineId = async () => (await docker.run(['info', '--format', '{{.ID}}'])).stdout.trim();
  /** Each has a process of its jail beside it, whose command line holds the same. */
  const machines = async () =>
    (await processesWith(`berth-${await broker.site()}-`)).filter(({ command }) =>
      command.startsWith('/usr/bin/qemu-system'),
    );
  const machineIsBack = () =>
    eventually('the engine answers again', async () => (await docker.run(['version'])).code === 0, {
      deadlineMs: 400_000,
      everyMs: 1_000,
    });
  let idAtFirst = '';

  beforeAll(async () => {
    broker = await makeBrokerProcess(1);
    cleanUp.push(() => broker.dispose());
    await broker.start();
    expect((await broker.create('survivor', 'org')).status).toBe(201);
    const bound = await broker.bind('survivor', 'binding');
    expect(bound.status).toBe(201);
    credentials = bound.body.credentials;
    docker = await dockerFor(credentials);
    cleanUp.push(() => docker.dispose());
    const imported = await docker.run(['import', '-', 'busybox:test'], await busyboxTree());
    expect(imported.code, imported.stderr).toBe(0);
    const run = await docker.run([
      ...['run', '-d', '--name', 'lasting', '--restart', 'always', 'busybox:test'],
      ...['/bin/sh', '-c', 'echo kept > /tmp/file; exec sleep 100000'],
    ]);
    expect(run.code, run.stderr).toBe(0);
    // A machine that dies loses what it has not written yet, as any machine does: the engine's record of the start,
    // and with it the container's right to be started again, where that was less than five seconds ago.
    const written = await docker.run(['exec', 'lasting', '/bin/busybox', 'sync']);
    expect(written.code, written.stderr).toBe(0);
    idAtFirst = await engineId();
  }, 1_200_000);

  afterAll(async () => {
    for (const act of cleanUp.reverse()) await act();
  }, 300_000);

  it('Ctrl-C stops the roles; the host goes on, and is adopted by the next start', async () => {
    const [before] = await machines();
    await broker.interrupt();
    expect((await machines()).map(({ pid }) => pid)).toEqual([before?.pid]);
    expect((await docker.run(['ps'])).code).not.toBe(0);
    await broker.start();
    expect(broker.output()).toContain('1 running hosts adopted');
    expect(await containers()).toBe('lasting running\n');
    expect((await machines()).map(({ pid }) => pid)).toEqual([before?.pid]);
  });

  it('a broker that is killed in every process comes back to the same host', async () => {
    const [before] = await machines();
    await broker.kill();
    await broker.start();
    expect(await containers()).toBe('lasting running\n');
    expect((await machines()).map(({ pid }) => pid)).toEqual([before?.pid]);
  });

  it('a virtual machine that dies is started again from its own disk, with its containers', async () => {
    const [before] = await machines();
    process.kill(before?.pid ?? 0, 'SIGKILL');
    await eventually(
      'the dead machine is seen',
      async () => {
        const [now] = await machines();
        return now !== undefined && now.pid !== before?.pid;
      },
      { deadlineMs: 60_000 },
    );
    await machineIsBack();
    await eventually('the container runs again', async () => (await containers()) === 'lasting running\n', {
      deadlineMs: 120_000,
      everyMs: 1_000,
    });
    const kept = await docker.run(['exec', 'lasting', '/bin/cat', '/tmp/file']);
    expect(kept.stdout, kept.stderr).toBe('kept\n');
    // Its identity is its own for ever, and not the template's again.
    expect(await engineId()).toBe(idAtFirst);
  });

  it('after a reboot of the whole machine the host boots again, with its containers', async () => {
    const site = await broker.site();
    await broker.kill();
    // What a reboot takes away: processes, namespaces, rules, control groups, and all of /run.
    for (const { pid } of await machines()) process.kill(pid, 'SIGKILL');
    await eventually('no machine runs', async () => (await machines()).length === 0);
    await execute('pkill', ['-KILL', '-f', `${broker.stateDirectory}/postgres`]).catch(() => undefined);
    for (const line of await residueOf(site)) {
      const namespace = /^ip: (berth-\w+-\d+)/.exec(line)?.[1];
      const group = /^cgroup (\S+)/.exec(line)?.[1];
      if (namespace !== undefined) await execute('ip', ['netns', 'delete', namespace]);
      if (group !== undefined) await execute('rmdir', [group]);
    }
    await execute('nft', ['delete', 'table', 'inet', `berth_${site}`]);
    await execute('rm', ['-rf', `/run/berth-${site}`]);
    await eventually('nothing of it is left', async () => (await residueOf(site)).length === 0);

    await broker.start();
    await machineIsBack();
    await eventually('the container runs again', async () => (await containers()) === 'lasting running\n', {
      deadlineMs: 120_000,
      everyMs: 1_000,
    });
    expect(await engineId()).toBe(idAtFirst);
  });

  it('a create that is killed in the middle ends rightly, and the delete leaves nothing', async () => {
    const created = broker.create('interrupted', 'org-2').catch(() => undefined);
    await eventually('the machine of the create has begun', async () => (await machines()).length > 1, {
      everyMs: 5,
    });
    await broker.kill();
    await created;
    await broker.start();
    const ready = await eventually(
      'the create has ended',
      async () => {
        const { body } = await broker.ask('GET', '/v2/service_instances/interrupted/last_operation');
        return body['state'] === 'in progress' ? undefined : body['state'];
      },
      { deadlineMs: 300_000, everyMs: 250 },
    );
    expect(ready).toBe('succeeded');
    expect((await machines()).length).toBe(2);
    expect((await broker.remove('interrupted')).status).toBe(200);
    expect((await broker.remove('survivor')).status).toBe(200);
    expect(await residueOf(await broker.site())).toEqual([]);
  });
});
