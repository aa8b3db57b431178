import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { busyboxTree, type Docker, dockerFor } from '../../tools/lib/docker.ts';
import { type BrokerProcess, makeBrokerProcess } from '../support/broker-process.ts';
import { eventually } from '../support/eventually.ts';

const image = 'busybox:test';

/**
 * What people expect of any Docker host (docs/docker-host.md), with the real docker CLI. That bind mounts outlast a restart:
 * test/hypervisors/qemu/update.vm.test.ts.
 */
describe('docker host', { timeout: 1_200_000 }, () => {
  let broker: BrokerProcess;
  let docker: Docker;
  const cleanUp: (() => Promise<void>)[] = [];

  /** Runs a docker command that has to succeed, and returns its output. */
  const succeeds = async (...args: readonly string[]): Promise<string> => {
    const { code, stdout, stderr } = await docker.run(args);
    expect(code, `docker ${args.join(' ')}: ${stderr}`).toBe(0);
    return stdout.trim();
  };
  /** Runs a shell script in a new container. */
  const inContainer = (options: readonly string[], script: string) =>
    succeeds('run', '--rm', '--network', 'none', ...options, image, '/bin/sh', '-c', script);

  beforeAll(async () => {
    broker = await makeBrokerProcess(2);
    cleanUp.push(() => broker.dispose());
    await broker.start();
    expect((await broker.create('host', 'org')).status).toBeLessThan(300);
    docker = await dockerFor((await broker.bind('host', 'binding')).body.credentials);
    cleanUp.push(() => docker.dispose());
    const imported = await docker.run(['import', '-', image], await busyboxTree());
    expect(imported.code, imported.stderr).toBe(0);
    await succeeds('run', '-d', '--name', 'bystander', image, '/bin/sleep', '100000');
  }, 1_200_000);

  afterAll(async () => {
    for (const act of cleanUp.reverse()) await act();
  }, 300_000);

  // Fails without these lines in image/guest/etc/sysctl.d: the kernel's defaults were printed.
  it('sysctls: have the values that images need', async () => {
    const names = ['vm.max_map_count', 'fs.inotify.max_user_watches', 'fs.inotify.max_user_instances'];
    names.push('fs.aio-max-nr', 'kernel.keys.maxkeys', 'net.core.rmem_max', 'kernel.pid_max');
    const values = await inContainer(['--network', 'host'], `busybox sysctl -n ${names.join(' ')}`);
    expect(values.split('\n').map(Number)).toEqual([
      1_048_576, 524_288, 1_024, 1_048_576, 20_000, 7_500_000, 4_194_304,
    ]);
  });

  // Fails without the modules, and with devtmpfs's modes for a user other than root.
  it('devices: /dev/net/tun and /dev/fuse can be given to containers, also of other users', async () => {
    const devices = ['--device', '/dev/net/tun', '--device', '/dev/fuse'];
    const made = await inContainer([...devices, '--cap-add', 'NET_ADMIN'], 'busybox tunctl -t tun7');
    expect(made).toBe('tun7');
    const opened = await inContainer(
      [...devices, '--user', '1000:1000'],
      'true <>/dev/net/tun && true <>/dev/fuse && echo opened',
    );
    expect(opened).toBe('opened');
  });

  // Fails without the socket in docker.socket: a folder was made and mounted.
  it('/var/run/docker.sock: the engine answers a container that mounts it', async () => {
    const ask = `
      socket(my $engine, AF_UNIX, SOCK_STREAM, 0) or die $!;
      connect($engine, sockaddr_un("/var/run/docker.sock")) or die $!;
      syswrite $engine, "GET /containers/bystander/json HTTP/1.0\\r\\n\\r\\n";
      print while <$engine>;`;
    const answer = await succeeds(
      ...['run', '--rm', '--network', 'none', '-v', '/var/run/docker.sock:/var/run/docker.sock'],
      // The guest's perl.
      ...['/usr', '/lib', '/lib64'].flatMap((folder) => ['-v', `${folder}:${folder}:ro`]),
      ...[image, '/usr/bin/perl', '-MSocket', '-we', ask],
    );
    expect(answer).toMatch(/^HTTP\/1.0 200 OK/);
    expect(answer).toContain('"Name":"/bystander"');
  });

  // Fails without the engine's root: "mkdir /data: read-only file system".
  it('bind mounts: of any path of the host work, and a shared one propagates', async () => {
    const paths = ['/data/pg', '/home/me/app', '/srv/x', '/mnt/x', '/media/x', '/root/x', '/opt/x', '/tmp/x'];
    paths.push('/etc/app.conf', '/etc/ssl/mine', '/usr/local/share/x', '/usr/share/x', '/usr/src/x');
    paths.push('/var/data', '/Users/me/app', process.cwd());
    const mounts = paths.flatMap((path, index) => ['-v', `${path}:/mounts/${index}`]);
    await inContainer(mounts, 'for mount in /mounts/*; do echo ${mount##*/} >$mount/file || exit 1; done');
    const read = await inContainer(
      ['-v', '/:/host'],
      paths.map((path) => `cat /host${path}/file`).join('; '),
    );
    expect(read.split('\n')).toEqual(paths.map((_, index) => String(index)));
    await inContainer(['-v', '/mnt/x:/x:rshared'], 'true');
  });

  it("bind mounts: the host's own files that many images mount are files", async () => {
    const files = [
      'hostname',
      'hosts',
      'localtime',
      'timezone',
      'machine-id',
      'os-release',
      'passwd',
      'resolv.conf',
    ];
    const mounts = files.flatMap((name) => ['-v', `/etc/${name}:/host/${name}:ro`]);
    const script = `for name in ${files.join(' ')}; do [ -f /host/$name ] && [ -s /host/$name ] || echo $name; done
      cat /host/hostname`;
    expect(await inContainer(mounts, script)).toBe(await succeeds('info', '--format', '{{.Name}}'));
  });

  // Fails if the engine runs from a root that tenants can write to.
  it("bind mounts: the engine's programs can't be changed", async () => {
    const script =
      'for folder in bin sbin lib; do echo x >/host/usr/$folder/x || echo refused; done 2>/dev/null';
    expect(await inContainer(['-v', '/:/host'], script)).toBe('refused\nrefused\nrefused');
  });

  it('runtimes: crun is the default, and runc can be chosen', async () => {
    // Fails without the default in image/guest/etc/berth/daemon.json: runc.
    expect(await succeeds('info', '--format', '{{.DefaultRuntime}}')).toBe('crun');
    const run = ['run', '-d', '--network', 'none', '--name'];
    for (const [name, ...options] of [['usual'], ['other', '--runtime', 'runc']] as const) {
      await succeeds(...run, name, ...options, '--init', image, '/bin/sleep', '100000');
      expect(await succeeds('exec', name, '/bin/echo', 'executed')).toBe('executed');
    }
    const inspect = ['inspect', '--format', '{{.HostConfig.Runtime}} {{.State.Status}}', 'usual', 'other'];
    expect(await succeeds(...inspect)).toBe('crun running\nrunc running');
    await succeeds('update', '--memory', '64m', '--memory-swap', '64m', 'usual');
    await succeeds('pause', 'usual');
    await succeeds('unpause', 'usual');
    await succeeds('rm', '-f', 'usual', 'other');
  });

  it.each(['crun', 'runc'])(
    'runtime %s: a command that is missing or not executable is told apart',
    async (runtime) => {
      const run = (command: string) =>
        docker.run(['run', '--rm', '--network', 'none', '--runtime', runtime, image, command]);
      const missing = await run('/bin/nothing');
      expect(missing.code, missing.stderr).toBe(127);
      expect(missing.stderr).toMatch(/no such file or directory|not found/i);
      const denied = await run('/www/index.html');
      expect(denied.code, denied.stderr).toBe(126);
      expect(denied.stderr).toMatch(/permission denied/i);
    },
  );

  it('log rotation: a container that prints 35 MB keeps the last of it, in at most three files of 10 MB', async () => {
    await succeeds(
      ...['run', '-d', '--name', 'talk', '--network', 'none', image, '/bin/sh', '-c'],
      'line=$(head -c 8000 /dev/zero | busybox tr "\\0" x); busybox yes $line | head -c 35000000; echo; echo last',
    );
    expect(await succeeds('wait', 'talk')).toBe('0');
    const id = await succeeds('inspect', '--format', '{{.Id}}', 'talk');
    const sizes = await inContainer(
      ['-v', `/var/lib/docker/containers/${id}:/logs:ro`],
      'busybox stat -c %s /logs/*.log*',
    );
    const bytes = sizes.split('\n').map(Number);
    expect(bytes.length).toBe(3);
    for (const size of bytes) expect(size).toBeLessThanOrEqual(10_100_000);
    expect(await succeeds('logs', '--tail', '1', 'talk')).toBe('last');
    await succeeds('rm', 'talk');
  });

  it.each(['journald', 'local', 'syslog'])(
    'log driver %s: what a container prints can be read back',
    async (driver) => {
      const name = `logs-to-${driver}`;
      await succeeds(
        ...['run', '--name', name, '--network', 'none', '--log-driver', driver, image],
        ...['/bin/echo', `to ${driver}`],
      );
      await eventually('the line is read back', async () =>
        (await succeeds('logs', name)).includes(`to ${driver}`),
      );
      await succeeds('rm', name);
    },
  );

  it('memory: a container that takes all of it is killed; engine and other containers are not', async () => {
    const taken = await docker.run(['run', '--name', 'glutton', image, '/bin/busybox', 'tail', '/dev/zero']);
    expect(taken.code).toBe(137);
    expect(await succeeds('inspect', '--format', '{{.State.OOMKilled}}', 'glutton')).toBe('true');
    await succeeds('rm', 'glutton');
    expect(await succeeds('exec', 'bystander', '/bin/echo', 'alive')).toBe('alive');
    expect(await succeeds('inspect', '--format', '{{.RestartCount}}', 'bystander')).toBe('0');
  });

  it('processes: a container with a fork bomb can be killed', async () => {
    await succeeds(
      ...['run', '-d', '--name', 'bomb', '--network', 'none', image, '/bin/sh', '-c'],
      'b() { b | b & }; b; sleep 100000',
    );
    await succeeds('kill', 'bomb');
    await succeeds('rm', 'bomb');
    expect(await succeeds('exec', 'bystander', '/bin/echo', 'alive')).toBe('alive');
  });

  it('disk: a tenant that has filled it removes the container and continues', async () => {
    const fill =
      'busybox fallocate -l $(busybox df -k / | busybox awk "NR == 2 { print \\$4 - 1024 }")k /fill';
    const filled = await docker.run([
      ...['run', '--name', 'fill', '--network', 'none', image, '/bin/sh', '-c'],
      `${fill}; busybox dd if=/dev/zero of=/rest bs=64k`,
    ]);
    expect(filled.stderr).toContain('No space left on device');
    expect((await docker.run(['run', '--rm', image, '/bin/echo'])).stderr).toContain(
      'no space left on device',
    );
    expect(await succeeds('ps', '--format', '{{.Names}}')).toBe('bystander');
    expect(await succeeds('exec', 'bystander', '/bin/echo', 'alive')).toBe('alive');
    await succeeds('rm', '-f', 'fill');
    await inContainer([], 'echo back');
  });
});
