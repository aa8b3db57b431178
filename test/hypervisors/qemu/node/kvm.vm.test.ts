import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmod, chown, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openJail } from '../../../../src/hypervisors/qemu/launch/jail.ts';
import { probeKvm, runTinyGuest } from '../../../../src/hypervisors/qemu/node/kvm.ts';
import { createHostNetworking } from '../../../../src/hypervisors/qemu/network/network.ts';
import { layoutOf } from '../../../../src/hypervisors/qemu/layout.ts';
import { tap } from '../../../../src/hypervisors/qemu/names.ts';
import { testSlot } from '../../../support/test-slot.ts';

const execute = promisify(execFile);

/** What KVM needs from the jail, as far as a node without KVM can show it. */
describe('KVM in the jail', { timeout: 960_000 }, () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp('/var/tmp/berth-kvm-');
    await chmod(folder, 0o755);
  });
  afterAll(() => rm(folder, { recursive: true }));

  // Fails if the boot sector's folder is not visible in the jail.
  it('KVM probe: its guest runs in the jail as an ordinary user (shown under emulation)', async () => {
    expect(await runTinyGuest(folder, 'tcg', 200_000)).toBeUndefined();
  });

  // Fails if the file is parsed without a fallback: Berth did not start any more after a power cut.
  it('KVM probe: an empty file of its last verdict is replaced', async () => {
    const cacheFile = path.join(folder, 'kvm.json');
    await writeFile(cacheFile, '');
    const { accelerator } = await probeKvm(cacheFile);
    expect(JSON.parse(await readFile(cacheFile, 'utf8'))).toMatchObject({ accelerator });
  });

  it('jail: contains /dev/kvm only if the accelerator is KVM', async () => {
    const devices = async (accelerator: 'kvm' | 'tcg') =>
      (await openJail(folder, accelerator)).command([], '/').filter((argument) => argument === '/dev/kvm');
    expect(await devices('kvm')).toHaveLength(2);
    expect(await devices('tcg')).toHaveLength(0);
  });

  // Fails with a launcher that drops all groups: access was denied both times.
  it("launcher: a host's user can open a device of an extra group, also in a user namespace", async () => {
    const site = randomBytes(2).toString('hex');
    const options = {
      site,
      stateDirectory: folder,
      runDirectory: folder,
      hostNetwork: `10.215.${testSlot}.0/24`,
      firstUid: 616_100 + testSlot,
      gatewayUid: 1,
      dnsServers: [],
      denyNetworks: [],
      hostLimits: { connections: 100, bandwidthMbit: 1000 },
    };
    const place = layoutOf(options, 'kvm', 1);
    const network = createHostNetworking(options, { withLock: (_, act) => act() });
    const group = 616_200 + testSlot;
    // A file's permissions work like a device's.
    const device = path.join(folder, 'device');
    await writeFile(device, '');
    await chown(device, 0, group);
    await chmod(device, 0o660);
    const launcher = path.join(import.meta.dirname, '..', '..', '..', '..', 'libexec', 'berth-launch');
    const open = async (user: string) => {
      const inside = [
        '--unshare-user',
        '--disable-userns',
        '--cap-drop',
        'ALL',
        '--dev-bind',
        '/',
        '/',
        '--',
      ];
      const script = 'print open(my $file, "+<", shift) ? "opened" : "$!"; print " by ", 0 + $>';
      const { stdout } = await execute('perl', [
        ...[launcher, '', '0', place.netnsPath, tap, user, '1000000:1000000'],
        ...[path.join(folder, 'qmp'), path.join(folder, 'agent'), '--'],
        ...['/usr/bin/bwrap', ...inside, '/usr/bin/perl', '-e', script, device],
      ]);
      return stdout;
    };
    await network.make(place);
    try {
      expect(await open(String(place.uid))).toBe(`Permission denied by ${place.uid}`);
      expect(await open(`${place.uid}:${group}`)).toBe(`opened by ${place.uid}`);
    } finally {
      await network.destroy(place, { first: 0, count: 0 });
    }
  });
});
