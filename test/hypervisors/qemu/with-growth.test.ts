import { expect, it } from 'vitest';
import { compare } from '../../../src/hypervisors/qemu/integrity/compare.ts';
import { withGrowth } from '../../../src/hypervisors/qemu/integrity/growth.ts';

const before = {
  argv: ['0: qemu'],
  rlimits: ['Max cpu time unlimited', 'Max file size 10 10 bytes'],
  cgroup: ['member of memory', 'memory.max 100', 'process qemu'],
  devices: ['block node data: qcow2 writable', 'added memory: 0 MiB'],
};
const after = {
  argv: ['0: qemu'],
  rlimits: ['Max cpu time unlimited', 'Max file size 20 20 bytes'],
  cgroup: ['member of memory', 'memory.max 200', 'process qemu'],
  devices: ['block node data: qcow2 writable', 'added memory: 768 MiB'],
};

it('manifest of a host that has grown: is what was found', () => {
  expect(withGrowth(before, after)).toEqual(after);
});

// Fails if all that was found is recorded: an attacker would wait for an update.
it('manifest of a host that has grown: whatever else has changed stays drift', () => {
  const altered = {
    ...after,
    argv: ['0: other'],
    cgroup: [...after.cgroup, 'process shell'],
    devices: [...after.devices, 'character device serial: pty'],
  };
  expect(compare(withGrowth(before, altered), altered)).toEqual([
    { part: 'argv', detail: 'missing: 0: qemu; new: 0: other' },
    { part: 'cgroup', detail: 'new: process shell' },
    { part: 'devices', detail: 'new: character device serial: pty' },
  ]);
});
