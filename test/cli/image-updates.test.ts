import { describe, expect, it } from 'vitest';
import { findImageUpdates } from '../../src/cli/image-updates.ts';
import type { ImageSuite } from '../../src/core/hypervisor/images.ts';
import type { InstalledImage } from '../../src/hypervisors/qemu/image/installed-images.ts';

const image = (version: string, suite: ImageSuite, list: readonly string[]): InstalledImage => ({
  directory: `/images/${version}`,
  version,
  suite,
  packages: { list, engine: undefined, kernel: undefined },
  builtAt: '2026-01-01T00:00:00.000Z',
  bytes: 1,
  isCurrent: false,
  isNewest: false,
  hosts: 0,
  templates: 0,
});

describe('security updates of images', () => {
  it('image updates: each image lacks those of its package versions, and each suite is asked once', async () => {
    const old = image('1', 'trixie', ['iptables 2.41-1', 'systemd 257-1']);
    const newer = image('2', 'trixie', ['iptables 2.41-2', 'systemd 257-1']);
    const other = image('3', 'bookworm', ['iptables 2.36-1']);
    const asked: unknown[] = [];
    const { missing, problems } = await findImageUpdates([old, newer, other], (suite, packages) => {
      asked.push([suite, [...packages].sort()]);
      return Promise.resolve(
        suite === 'trixie' ? [{ name: 'iptables', version: '2.41-1', newer: '2.41-3' }] : [],
      );
    });
    expect(asked).toEqual([
      ['trixie', ['iptables 2.41-1', 'iptables 2.41-2', 'systemd 257-1']],
      ['bookworm', ['iptables 2.36-1']],
    ]);
    expect(missing.get(old)).toEqual([{ name: 'iptables', version: '2.41-1', newer: '2.41-3' }]);
    expect(missing.get(newer)).toEqual([]);
    expect(missing.get(other)).toEqual([]);
    expect(problems).toEqual([]);
  });

  it('image updates: unknown, with the reason, if the mirror fails or the image has no list of packages', async () => {
    const lost = image('1', 'trixie', ['iptables 2.41-1']);
    const unlisted = image('2', 'bookworm', []);
    const { missing, problems } = await findImageUpdates([lost, unlisted], (suite) =>
      suite === 'trixie' ? Promise.reject(new Error('no route')) : Promise.resolve([]),
    );
    expect([...missing]).toEqual([]);
    expect(problems).toEqual(["Debian's mirror could not be asked for security updates of trixie: no route"]);
  });
});
