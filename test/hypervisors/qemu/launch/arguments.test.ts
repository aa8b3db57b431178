import { expect, it } from 'vitest';
import { vmArguments } from '../../../../src/hypervisors/qemu/launch/arguments.ts';

const shape = { vcpus: 1, memoryMib: 768, diskGib: 4 };

it('arguments: under KVM a guest gets no processor extensions for nested VMs (VMX, SVM)', () => {
  // Fails with `-cpu host` alone.
  const args = vmArguments('kvm', { start: shape, room: { vcpus: 16, memoryMib: 32_768 } });
  expect(args[args.indexOf('-cpu') + 1]).toBe('host,vmx=off,svm=off');
});

it('arguments: a VM that is started at its largest size has no memory to add', () => {
  const room = { vcpus: 16, memoryMib: 2048 };
  expect(vmArguments('tcg', { start: { vcpus: 2, memoryMib: 4096 }, room }).join(' ')).not.toContain(
    'virtio-mem',
  );
  expect(vmArguments('tcg', { start: { vcpus: 1, memoryMib: 768 }, room }).join(' ')).toContain(
    'id=added,size=1280M',
  );
});

// Fails if the text differs in anything: hosts that were suspended before an update of Berth would boot from their disks.
it('arguments: a VM that a former version of Berth has started is described as that version did', () => {
  const text = vmArguments('tcg', { start: shape, room: shape }).join(' ');
  expect(text).toContain('-smp 1 -m 768M -nodefaults');
  expect(text).toMatch(/-device vmgenid,guid=auto$/);
});
