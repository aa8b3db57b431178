import { expect, it } from 'vitest';
import { bootedSize } from '../../../../src/hypervisors/qemu/launch/started-size.ts';

const room = { vcpus: 4, memoryMib: 8192, diskGib: 64 };
const shape = { vcpus: 2, memoryMib: 2048, diskGib: 16 };
const able = { turnsOnCpus: true };

// Fails if two emulated CPUs run while the kernel patches its code: on a busy node, some of these boots end with a panic.
it('booted size: an emulated guest boots with one CPU, and waits for its agent to turn on the others', () => {
  expect(bootedSize(shape, { accelerator: 'tcg', room }, able)).toEqual({
    bounds: { start: { vcpus: 1, memoryMib: 2048 }, room: { vcpus: 4, memoryMib: 8192 } },
    growing: { isAdded: true },
  });
});

it('booted size: all CPUs at once with KVM, with one CPU, without room, and with an image of a former version', () => {
  const start = (of: typeof shape, accelerator: 'kvm' | 'tcg', turnsOnCpus = true) => {
    const { bounds, growing } = bootedSize(of, { accelerator, room }, { turnsOnCpus });
    expect(growing).toBeUndefined();
    return bounds?.start.vcpus;
  };
  expect(start(shape, 'kvm')).toBe(2);
  expect(start({ ...shape, vcpus: 1 }, 'tcg')).toBe(1);
  expect(start({ ...shape, vcpus: 8 }, 'tcg')).toBe(8);
  expect(start(shape, 'tcg', false)).toBe(2);
});
