import { execFile } from 'node:child_process';
import { request } from 'node:http';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { readHostRecord, writeHostRecord } from '../../../src/hypervisors/qemu/host-record.ts';
import { largestFile } from '../../../src/hypervisors/qemu/launch/sizes.ts';
import { cutOff } from '../../isolation/support/cut-off.ts';
import { makeHosts, type TestHost, type TestHosts } from '../../isolation/support/hosts.ts';
import { eventually } from '../../support/eventually.ts';

const execute = promisify(execFile);
const deadline = { deadlineMs: 120_000, everyMs: 50 };
const medium = { vcpus: 2, memoryMib: 1536, diskGib: 6 };
/** An odd number: memory is added in blocks of 2 MiB. */
const large = { vcpus: 4, memoryMib: 2561, diskGib: 9 };

describe('a host that grows while it runs', { timeout: 600_000 }, () => {
  let hosts: TestHosts;
  const made: TestHost[] = [];
  beforeAll(async () => {
    hosts = await makeHosts();
  }, 1_200_000);
  afterEach(async () => {
    for (const { spec } of made.splice(0)) await hosts.driver.destroy(spec.hostId);
  });
  afterAll(() => hosts.close(), 300_000);

  const make = async (...spec: Parameters<TestHosts['newSpec']>) => {
    const host = await hosts.bringUp(hosts.newSpec(...spec));
    made.push(host);
    return host;
  };

  /** CPUs and memory in MiB that the engine reports. */
  async function engineInfo({ engine }: TestHost): Promise<{ vcpus: number; memoryMib: number }> {
    const text = await new Promise<string>((resolve, reject) => {
      request({ ...engine, path: '/info' }, (response) => {
        let body = '';
        response.on('data', (chunk: Buffer) => (body += chunk.toString()));
        response.on('end', () => {
          resolve(body);
        });
      })
        .on('error', reject)
        .end();
    });
    const { NCPU, MemTotal } = JSON.parse(text) as { NCPU: number; MemTotal: number };
    return { vcpus: NCPU, memoryMib: MemTotal / 1024 ** 2 };
  }

  /** The kernel takes a part of a guest's memory for itself. */
  async function expectSize(host: TestHost, shape: typeof medium): Promise<void> {
    const { vcpus, memoryMib } = await engineInfo(host);
    expect(vcpus).toBe(shape.vcpus);
    expect(memoryMib).toBeGreaterThan(0.85 * shape.memoryMib);
    expect(memoryMib).toBeLessThanOrEqual(shape.memoryMib + 1);
    const attacker = await host.attacker();
    const disk = Number(await attacker.root(`df -m /host/var | awk 'END { print $2 }'`)) / 1024;
    expect(disk).toBeGreaterThan(0.9 * shape.diskGib);
    expect(await hosts.driver.hasShape({ ...host.spec, shape })).toBe(true);
    expect(await hosts.driver.verify(host.spec.hostId)).toEqual([]);
  }

  const grow = (host: TestHost, shape: typeof medium) =>
    eventually('the guest uses what was added', () => hosts.driver.grow({ ...host.spec, shape }), deadline);

  it('grow: CPUs, memory and disk are there without a restart, and again after suspension and restart', async () => {
    const { driver } = hosts;
    const host = await make();
    const attacker = await host.attacker();
    const started = await attacker.root('cut -d" " -f22 /proc/1/stat');
    const pid = await host.pid();
    for (const shape of [medium, large]) {
      await grow(host, shape);
      await expectSize(host, shape);
    }
    // More than it had at first.
    await attacker.root(
      'mkdir -p /data; mount -t tmpfs -o size=1200M none /data; head -c 1000000000 /dev/zero > /data/file',
    );
    expect(await attacker.root('cut -d" " -f22 /proc/1/stat')).toBe(started);
    expect(await host.pid()).toBe(pid);
    expect(await driver.grow({ ...host.spec, shape: large })).toBe(true);
    await expect(driver.grow({ ...host.spec, shape: medium })).rejects.toThrow(/smaller/);

    const spec = { ...host.spec, shape: large };
    await attacker.root('rm /data/file; umount /data');
    await driver.suspend(spec.hostId);
    await driver.prepare(spec);
    await driver.resume(spec);
    await eventually('the guest has its clock', () => driver.identify(spec), deadline);
    await driver.connect(spec);
    await eventually('the engine answers', () => driver.engineAnswers(spec), deadline);
    await expectSize(host, large);
    expect(await attacker.root('cut -d" " -f22 /proc/1/stat')).toBe(started);

    await driver.stop(spec.hostId);
    await expectSize(await hosts.bringUp(spec), large);
  });

  it('create: a host of a larger plan has its size when it has its identity, and so has one of the pool', async () => {
    await expectSize(await make({ shape: medium }), medium);
    const spec = hosts.newSpec({ shape: large });
    await hosts.driver.prepare(spec);
    expect(await hosts.driver.park(spec)).toBe(true);
    const host = await hosts.bringUp(spec);
    made.push(host);
    expect(await hosts.driver.startedFrom(spec.hostId)).toBe('pool');
    await expectSize(host, large);
  });

  // Fails if a claim only resumes the VM.
  it("start: a parked host has its owner's size when it has its identity", async () => {
    const { spec } = await hosts.pool();
    const host = await hosts.bringUp({ ...spec, shape: large });
    made.push(host);
    expect(await hosts.driver.startedFrom(spec.hostId)).toBe('pool');
    await expectSize(host, large);
  });

  it("start: a parked VM that refuses its owner's size is made again", async () => {
    const pooled = await hosts.pool();
    const limit = String(largestFile(pooled.spec.shape));
    const pid = await pooled.pid();
    const asItsUser = [`--reuid=${pooled.layout.uid}`, `--regid=${pooled.layout.uid}`, '--clear-groups'];
    await execute('setpriv', [...asItsUser, 'prlimit', `--pid=${pid}`, `--fsize=${limit}:${limit}`]);
    const host = await hosts.bringUp({ ...pooled.spec, shape: large });
    made.push(host);
    expect(await hosts.driver.startedFrom(host.spec.hostId)).toBe('template');
    expect(await host.pid()).not.toBe(pid);
    await expectSize(host, large);
  });

  // Fails if the check compares such a host with its former manifest, or leaves it out forever.
  it('verify: completes a growth that was interrupted after it was recorded', async () => {
    const { driver } = hosts;
    const host = await make();
    const file = host.layout.record;
    const record = await readHostRecord(file);
    if (record === undefined) throw new Error('the host has no record');
    const growing = { since: new Date().toISOString(), isAdded: false };
    await writeHostRecord(file, { ...record, shape: medium, growing });
    expect(await driver.verify(host.spec.hostId)).toEqual([]);
    expect(await driver.hasShape({ ...host.spec, shape: medium })).toBe(false);
    await grow(host, medium);
    await expectSize(host, medium);
  });

  it('grow: a guest that does not use what was added is reported, so that its host is restarted', async () => {
    const { driver } = hosts;
    const host = await make();
    const attacker = await host.attacker();
    // Its agent answers nothing any more.
    await attacker.root('kill -STOP $(pidof perl)');
    await expect(grow(host, medium)).rejects.toThrow(/has not taken/);
    expect(await driver.hasShape({ ...host.spec, shape: medium })).toBe(false);
    expect(await driver.hasShape(host.spec)).toBe(false);
  });

  // Fails if the record of the new size is written last: the VM then had more than its record says.
  it('grow: a host has all of its new size after a worker was killed before each change and another one continued', async () => {
    const { driver } = hosts;
    const host = await make();
    let { shape } = host.spec;
    let changes = 0;
    for (let end = ''; end !== 'done';) {
      changes += 1;
      const { vcpus, memoryMib, diskGib } = shape;
      shape = { vcpus: Math.min(4, vcpus + 1), memoryMib: memoryMib + 64, diskGib: diskGib + 1 };
      end = await cutOff(hosts.options, ['grow', { ...host.spec, shape }], changes);
      expect(await driver.verify(host.spec.hostId), `killed before change ${changes}`).toEqual([]);
      await grow(host, shape);
      await expectSize(host, shape);
    }
    expect(changes).toBeGreaterThan(8);
  });

  // QEMU does not keep a guest from memory that is not plugged: the control group does.
  it('grow: a guest that uses memory which was not added is ended at its limit, and its neighbour is not', async () => {
    const neighbour = await make({ shape: medium });
    const { spec } = await make();
    // A booted VM uses nothing of the device yet, so no part of its memory stays reserved without the driver.
    await hosts.driver.stop(spec.hostId);
    const host = await hosts.bringUp(spec);
    const attacker = await host.attacker();
    const before = await neighbour.pid();
    // Without its driver nothing keeps root from the device's memory; read(2) writes to it.
    let printed = '';
    const touching = attacker.perl(`
      use Fcntl;
      my ($device) = map { m{([^/]+)$} } glob '/sys/bus/virtio/drivers/virtio_mem/virtio*' or die 'no device';
      open my $map, '<', '/proc/iomem' or die $!;
      my ($at) = map { /^([0-9a-f]+)-[0-9a-f]+ : $device$/ ? hex $1 : () } <$map> or die 'no memory';
      open my $driver, '>', '/sys/bus/virtio/drivers/virtio_mem/unbind' or die $!;
      syswrite($driver, $device) or die $!;
      sysopen my $memory, '/dev/mem', O_RDWR or die $!;
      open my $zeros, '<', '/dev/zero' or die $!;
      my $bytes = 4 * 1024 ** 3;
      my $mapped = syscall 9, 0, $bytes, 3, 1, fileno $memory, $at;
      $mapped != -1 or die "mapping: $!";
      for (my $done = 0; $done < $bytes; $done += 1024 ** 2) {
        syscall(0, fileno $zeros, $mapped + $done, 1024 ** 2) > 0 or die "read: $!";
      }
      print 'everything was used';`);
    // Nothing answers once the VM has ended.
    touching.then(
      (text) => (printed = text),
      () => undefined,
    );
    await eventually(
      'the VM has ended',
      async () => {
        expect(printed).toBe('');
        return (await hosts.driver.memoryUsage(host.spec.hostId)) === undefined;
      },
      deadline,
    );
    expect(await neighbour.pid()).toBe(before);
    await expectSize(neighbour, medium);
    await hosts.bringUp(host.spec);
    expect(await hosts.driver.hasShape(host.spec)).toBe(true);
  });
});
