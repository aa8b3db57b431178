import { expect, it } from 'vitest';
import { vmArguments } from '../../../../src/hypervisors/qemu/launch/arguments.ts';

const shape = { vcpus: 1, memoryMib: 768, diskGib: 4 };

it('arguments: under KVM a guest gets no processor extensions for nested VMs (VMX, SVM)', () => {
  // Fails with `-cpu host` alone.
  const args = vmArguments('kvm', shape);
  expect(args[args.indexOf('-cpu') + 1]).toBe('host,vmx=off,svm=off');
});
