/* eslint-disable max-lines -- one story on two real hosts, which take minutes to make */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { networkInterfaces, tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { userIds } from '../../src/config/users.ts';
import type { Credentials } from '../../src/http/osb/credentials-body.ts';
import { type BrokerProcess, largerPlanId, makeBrokerProcess, serviceId } from '../support/broker-process.ts';
import { busyboxTree, type Docker, dockerFor } from '../../tools/lib/docker.ts';
import { eventually } from '../support/eventually.ts';
import { privilegesOf, tryAs } from '../support/process-privileges.ts';
import { nodeAddress } from '../../src/config/defaults.ts';
import { createOutsidePeer, type OutsidePeer } from '../../tools/lib/outside-peer.ts';
import { connectPlatform } from '../../tools/lib/platform.ts';
import { isAboutTemplate, residueOf } from '../../tools/lib/residue.ts';

const execute = promisify(execFile);
const ownAddress = nodeAddress();

/** Everything that a tenant does, from create to delete, on real VMs and with the real docker CLI. */
describe('tenant', { timeout: 1_200_000 }, () => {
  let broker: BrokerProcess;
  let outside: OutsidePeer;
  let a: Credentials;
  let b: Credentials;
  let dockerA: Docker;
  let dockerB: Docker;
  const cleanUp: (() => Promise<void>)[] = [];
  const firstPort = (credentials: Credentials) => Number(credentials.published_ports.split('-')[0]);

  beforeAll(async () => {
    broker = await makeBrokerProcess(0);
    cleanUp.push(() => broker.dispose());
    outside = await createOutsidePeer();
    cleanUp.push(() => outside.remove());
    await broker.start();
  }, 1_200_000);

  afterAll(async () => {
    for (const act of cleanUp.reverse()) await act();
  }, 300_000);

  it('catalog: lists the offering', async () => {
    const { status, body } = await broker.ask<{ services: { name: string }[] }>('GET', '/v2/catalog');
    expect(status).toBe(200);
    expect(body.services.map(({ name }) => name)).toEqual(['container-host']);
  });

  it('create: two tenants each get a host within the request, from the template', async () => {
    const answers = await Promise.all([
      broker.create('instance-a', 'org-a'),
      broker.create('instance-b', 'org-b'),
    ]);
    expect(answers.map(({ status }) => status)).toEqual([201, 201]);
  });

  it('bind: returns credentials that docker can use', async () => {
    const bound = await Promise.all([
      broker.bind('instance-a', 'binding-a'),
      broker.bind('instance-b', 'binding-b'),
    ]);
    expect(bound.map(({ status }) => status)).toEqual([201, 201]);
    [a, b] = bound.map(({ body }) => body.credentials) as [Credentials, Credentials];
    [dockerA, dockerB] = await Promise.all([dockerFor(a), dockerFor(b)]);
    cleanUp.push(
      () => dockerA.dispose(),
      () => dockerB.dispose(),
    );
    const [infoA, infoB] = await Promise.all(
      [dockerA, dockerB].map((docker) => docker.run(['info', '--format', '{{.ID}} {{.Name}}'])),
    );
    expect(infoA?.code, infoA?.stderr).toBe(0);
    expect(infoB?.code, infoB?.stderr).toBe(0);
    // Each restored host gets another identity than the template.
    expect(infoA?.stdout.split(' ')[0]).not.toBe(infoB?.stdout.split(' ')[0]);
    expect(infoA?.stdout.split(' ')[1]).not.toBe(infoB?.stdout.split(' ')[1]);
  });

  it('privileges: api and gateway run as users that can open no file of hosts, of each other, or of root', async () => {
    // Fails without dropPrivileges, without --no-new-privs (src/processes/supervisor/child-process.ts), and if
    // credentials.json, the host's socket folder or its disk is readable by all.
    const { api, gateway } = userIds(broker.settings.uidBase);
    const state = (...names: string[]) => path.join(broker.stateDirectory, ...names);
    const run = `/run/berth-${await broker.site()}`;
    const [host = ''] = await readdir(state('hosts'));
    const template = state('templates', (await readdir(state('templates')))[0] ?? '');
    const acts = [
      ...[
        'master.key',
        'credentials.json',
        'manifest-key.pem',
        'postgres/password',
        'postgres/data/PG_VERSION',
      ],
      ...['api', 'gateway', 'worker'].map((name) => `database-url.${name}`),
    ].map((name) => `read ${state(name)}`);
    acts.push(
      ...['read', 'write'].map((how) => `${how} ${state('hosts', host, 'disk.qcow2')}`),
      ...['qmp.sock', 'agent.sock'].map((name) => `connect ${path.join(run, 'hosts', host, name)}`),
      `read ${path.join(run, 'hosts', host, 'manifest.json')}`,
      ...['memory', 'device-state', 'disk.qcow2', 'template.json'].map(
        (name) => `write ${path.join(template, name)}`,
      ),
    );
    // All of them exist: as root each act succeeds.
    const root = await privilegesOf(process.pid);
    expect(await tryAs(root, acts)).toEqual(acts.map((act) => `done ${act}`));

    for (const [name, uid] of [
      ['api', api],
      ['gateway', gateway],
    ] as const) {
      const pid = await broker.processPid(name);
      const privileges = await privilegesOf(pid);
      // Linux has them for each thread.
      for (const thread of await readdir(`/proc/${pid}/task`)) {
        expect(await privilegesOf(Number(thread)), `${name}, thread ${thread}`).toEqual({
          uids: Array(4).fill(uid),
          gids: Array(4).fill(uid),
          groups: [],
          capabilities: [],
          canGain: false,
        });
      }
      expect(await tryAs(privileges, acts), name).toEqual(acts.map((act) => `refused ${act}`));
    }
  });

  it('docker: imports, runs and publishes; the page can be fetched from outside', async () => {
    const imported = await dockerA.run(['import', '-', 'busybox:test'], await busyboxTree());
    expect(imported.code, imported.stderr).toBe(0);
    const port = firstPort(a);
    const run = await dockerA.run([
      ...['run', '-d', '--name', 'web', '-p', `${port}:80`, 'busybox:test'],
      ...['/bin/httpd', '-f', '-p', '80', '-h', '/www'],
    ]);
    expect(run.code, run.stderr).toBe(0);
    const url = `http://${ownAddress}:${port}/`;
    await eventually('the page is served', async () =>
      (await outside.run('curl', '-s', '-m', '5', url)).includes('hello from a container'),
    );
    // And from the node itself, by its own address.
    expect((await execute('curl', ['-s', '-m', '10', url])).stdout).toBe('hello from a container\n');
  });

  // Fails if the worker does not check the node's rules: nobody reached the page again.
  it("firewall: the node's rules are back, with the published ports, after another program has removed them", async () => {
    const url = `http://${ownAddress}:${firstPort(a)}/`;
    const reached = () => outside.run('curl', '-s', '-m', '2', url).catch(() => '');
    const before = broker.output().length;
    await execute('nft', ['delete', 'table', 'inet', `berth_${await broker.site()}`]);
    await eventually('the repair is logged', () =>
      broker.output().slice(before).includes('node.rules_repaired'),
    );
    await eventually('the page is served, behind the same port', async () =>
      (await reached()).includes('hello from a container'),
    );
  });

  it('docker exec: works with a terminal and with half-closed input, and returns the exit code', async () => {
    const terminal = await dockerA.onTerminal('exec -it web /bin/sh', 'tty; echo sum=$((40+2)); exit 7\n');
    expect(terminal.stdout).toContain('/dev/pts/');
    expect(terminal.stdout).toContain('sum=42');
    expect(terminal.code).toBe(7);
    // The end of the input must reach the container, and all output must arrive after it.
    const data = randomBytes(3 * 1024 * 1024).toString('base64');
    const piped = await dockerA.run(['exec', '-i', 'web', '/bin/cat'], data);
    expect(piped.code, piped.stderr).toBe(0);
    expect(piped.stdout === data).toBe(true);
  });

  it('docker attach: works', async () => {
    // With `create -i`, the end of the attached client's input ends the container's input.
    const created = await dockerA.run(['create', '-i', '--name', 'echo', 'busybox:test', '/bin/cat']);
    expect(created.code, created.stderr).toBe(0);
    expect((await dockerA.run(['start', 'echo'])).code).toBe(0);
    const attached = await dockerA.run(['attach', 'echo'], 'one\ntwo\n');
    expect(attached.stdout).toBe('one\ntwo\n');
  });

  it('docker cp: works in both directions', async () => {
    const directory = await mkdtemp(path.join(tmpdir(), 'berth-cp-'));
    try {
      const content = randomBytes(1_000_000);
      await writeFile(path.join(directory, 'in'), content);
      const into = await dockerA.run(['cp', path.join(directory, 'in'), 'web:/tmp/file']);
      expect(into.code, into.stderr).toBe(0);
      const back = await dockerA.run(['cp', 'web:/tmp/file', path.join(directory, 'out')]);
      expect(back.code, back.stderr).toBe(0);
      const { stdout } = await execute('cmp', [path.join(directory, 'in'), path.join(directory, 'out')]);
      expect(stdout).toBe('');
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  it('docker build: works with the classic builder', async () => {
    const directory = await mkdtemp(path.join(tmpdir(), 'berth-build-'));
    try {
      await writeFile(
        path.join(directory, 'Dockerfile'),
        'FROM busybox:test\nRUN echo built > /built\nCMD ["/bin/cat", "/built"]\n',
      );
      const built = await dockerA.run(['build', '-t', 'built:test', directory]);
      expect(built.code, built.stderr).toBe(0);
      const run = await dockerA.run(['run', '--rm', 'built:test']);
      expect(run.stdout, run.stderr).toBe('built\n');
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  it('docker save and load: work', async () => {
    const saved = await dockerA.run(['save', 'built:test']);
    expect(saved.code, saved.stderr).toBe(0);
    const loaded = await dockerB.run(['load'], Buffer.from(saved.stdout, 'latin1'));
    expect(loaded.stdout, loaded.stderr).toContain('Loaded image: built:test');
  });

  it("gateway: A's certificate leads to A's host and to no other", async () => {
    const names = async (docker: Docker) => (await docker.run(['ps', '-a', '--format', '{{.Names}}'])).stdout;
    expect(await names(dockerA)).toContain('web');
    expect(await names(dockerB)).not.toContain('web');
  });

  describe('from inside a host', () => {
    /** The targets to which a container in the host's network namespace can connect. */
    const reached = async (docker: Docker, targets: readonly string[]): Promise<string[]> => {
      const probe = targets.map(
        (target) => `(echo | nc -w 3 ${target} >/dev/null 2>&1 && echo "${target}") &`,
      );
      const attempt = await docker.run([
        ...['run', '--rm', '--network', 'host', 'busybox:test', '/bin/sh', '-c'],
        `${probe.join('\n')}\nwait; echo done`,
      ]);
      expect(attempt.stdout, attempt.stderr).toMatch(/done\n$/);
      return attempt.stdout.split('\n').slice(0, -2);
    };

    it('egress: the internet is reachable, the network of the node is not', async () => {
      outside.start('/bin/busybox', 'httpd', '-f', '-p', '8000', '-h', '/usr/share/common-licenses');
      const { internetAddress, localAddress } = outside;
      await eventually('the simulated internet answers', async () =>
        (await outside.run('curl', '-s', '-m', '2', `http://${internetAddress}:8000/BSD`)).includes(
          'Regents',
        ),
      );
      const internet = `${internetAddress} 8000`;
      expect(await reached(dockerA, [internet, `${localAddress} 8000`])).toEqual([internet]);
    });

    // Fails without the drop rules of the node's input chain and of the egress chain: 17 targets answered.
    it("egress: neither another tenant's host nor the node is reachable", async () => {
      const { stdout } = await execute('nft', [
        'list',
        'map',
        'inet',
        `berth_${await broker.site()}`,
        'ports',
      ]);
      const hostB = new RegExp(`${firstPort(b)}-\\d+ : ([0-9.]+)`).exec(stdout)?.[1] ?? 'not found';
      expect(hostB).toMatch(/^10\./);
      const inspected = await dockerA.run(['inspect', '--format', '{{.NetworkSettings.IPAddress}}', 'web']);
      // Shows that the probe works.
      const own = `${inspected.stdout.trim()} 80`;
      const node = ownAddress;
      // All listening ports of the node, including the broker's, at each address. The embedded Postgres has no port.
      const listening = (await execute('ss', ['-Htln'])).stdout.matchAll(/:(\d+)\s/g);
      const ports = new Set([...listening].map(([, port = '']) => Number(port)));
      expect([...ports]).toEqual(expect.arrayContaining([0, 1, 2].map((more) => broker.firstPort + more)));
      const addresses = Object.values(networkInterfaces())
        .flatMap((list) => list ?? [])
        .filter(({ family, internal }) => family === 'IPv4' && !internal)
        .map(({ address }) => address);
      const forbidden = [
        `${hostB} 2375`,
        `${hostB} ${firstPort(b)}`,
        `${node} ${firstPort(b)}`,
        ...addresses.flatMap((address) => [...ports].map((port) => `${address} ${port}`)),
        '169.254.169.254 80',
        // A container's own engine, without credentials.
        '100.127.255.2 2375',
      ];
      expect(await reached(dockerA, [...forbidden, own])).toEqual([own]);
    });
  });

  // Fails if the gateway does not request the wake of a paused or suspended host.
  it('power: a paused and a suspended host wake for the next docker command, with container and clock', async () => {
    const platform = await connectPlatform(broker.settings);
    const ofB = async () => {
      const host = (await platform.hosts()).find(({ instance }) => instance === 'instance-b');
      if (host === undefined) throw new Error('instance-b has no host');
      return host;
    };
    expect((await dockerB.run(['import', '-', 'sleep:test'], await busyboxTree())).code).toBe(0);
    const run = ['run', '-d', '--name', 'sleeper', 'sleep:test', '/bin/sleep', '10000'];
    expect((await dockerB.run(run)).code).toBe(0);
    for (const power of ['paused', 'suspended'] as const) {
      await platform.setPower((await ofB()).host, power);
      await eventually(`the host is ${power}`, async () => (await ofB()).power === power, {
        deadlineMs: 60_000,
      });
      const poweredDownAt = Date.now();
      // idle.vm.test.ts checks the clock of a paused host.
      await eventually(
        'the clock would be wrong',
        () => power === 'paused' || Date.now() - poweredDownAt > 20_000,
        { deadlineMs: 60_000 },
      );
      const asked = Date.now() / 1000;
      const date = await dockerB.run(['exec', 'sleeper', '/bin/busybox', 'date', '+%s']);
      expect(date.code, date.stderr).toBe(0);
      // Seconds, compared with the times before and after the request. A clock that was not set would be 20 s behind.
      expect(Number(date.stdout)).toBeGreaterThan(asked - 10);
      expect(Number(date.stdout)).toBeLessThan(Date.now() / 1000 + 10);
      expect((await ofB()).power).toBe('running');
    }
  });

  it('update: to a larger plan keeps data, ports and binding', async () => {
    const server = ['/bin/httpd', '-f', '-p', '81', '-h', '/www'];
    const port = firstPort(a) + 1;
    const lasting = ['run', '-d', '--restart', 'always', '--name', 'lasting', '-p', `${port}:81`];
    expect((await dockerA.run([...lasting, 'busybox:test', ...server])).code).toBe(0);
    const sizeOf = async () => {
      const df = await dockerA.run(['run', '--rm', 'busybox:test', '/bin/busybox', 'df', '-m', '/']);
      expect(df.code, df.stderr).toBe(0);
      return Number(/\s(\d+)\s+\d+\s+\d+\s+\d+%/.exec(df.stdout)?.[1]);
    };
    const before = await sizeOf();
    const answer = await broker.ask('PATCH', '/v2/service_instances/instance-a?accepts_incomplete=true', {
      service_id: serviceId,
      plan_id: largerPlanId,
    });
    // 200 if the host has grown within BERTH_SYNC_WAIT_MS.
    expect([200, 202]).toContain(answer.status);
    await eventually(
      'the update has ended',
      async () => {
        const { body } = await broker.ask('GET', '/v2/service_instances/instance-a/last_operation');
        expect(body['state'], String(body['description'])).not.toBe('failed');
        return body['state'] === 'succeeded';
      },
      { deadlineMs: 200_000, everyMs: 500 },
    );
    const info = await dockerA.run(['info', '--format', '{{.NCPU}}']);
    expect(info.stdout.trim(), info.stderr).toBe('2');
    expect((await dockerA.run(['image', 'inspect', 'busybox:test'])).code).toBe(0);
    expect(await sizeOf()).toBeGreaterThan(before * 1.3);
    await eventually('the page is served, behind the same port', async () =>
      (await outside.run('curl', '-s', '-m', '5', `http://${ownAddress}:${port}/`)).includes('hello'),
    );
    const fetched = await broker.ask('GET', '/v2/service_instances/instance-a');
    expect(fetched.body).toMatchObject({ plan_id: largerPlanId });
  });

  it('unbind: cuts a running stream before it answers; later connections are refused', async () => {
    await dockerA.run([
      'run',
      '-d',
      '--name',
      'talk',
      'busybox:test',
      '/bin/sh',
      '-c',
      'echo talking; exec sleep 1000',
    ]);
    const logs = dockerA.follow(['logs', '-f', 'talk']);
    let printed = '';
    logs.stdout.setEncoding('utf8').on('data', (text: string) => (printed += text));
    const ended = new Promise<void>((resolve) =>
      logs.once('close', () => {
        resolve();
      }),
    );
    await eventually('the log is followed', () => printed.includes('talking'), { deadlineMs: 60_000 });
    expect((await broker.unbind('instance-a', 'binding-a')).status).toBe(200);
    const refused = await dockerA.run(['ps']);
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toContain('no live binding');
    await ended;
    // B is unaffected.
    expect((await dockerB.run(['ps'])).code).toBe(0);
  });

  it('delete: leaves nothing of the hosts', async () => {
    expect((await broker.remove('instance-a')).status).toBe(200);
    expect((await broker.remove('instance-b')).status).toBe(200);
    // The template may be made in the background.
    const left = await residueOf(await broker.site());
    expect(left.filter((line) => !isAboutTemplate(line))).toEqual([]);
    expect((await dockerB.run(['ps'])).code).not.toBe(0);
    await expect(
      execute('curl', ['-s', '-m', '3', `http://${ownAddress}:${firstPort(a)}/`]),
    ).rejects.toThrow();
  });
});
