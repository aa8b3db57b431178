import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import type { Facts } from '../integrity/manifest.ts';
import { compare } from '../integrity/compare.ts';
import type { HostLayout } from '../layout.ts';

/**
 * Rejects a process whose arguments, user or privileges differ from the launch spec, so that a manifest never records
 * an altered process as the expected one.
 * @throws HypervisorError that names the first difference.
 */
export function requireMatchesLaunchSpec(
  facts: Facts,
  layout: HostLayout,
  command: readonly string[],
  extraGroups: readonly number[],
): void {
  // The kernel lists groups sorted.
  const groups = [layout.uid, ...extraGroups].sort((one, other) => one - other);
  const expected: Facts = {
    argv: command.map((argument, index) => `${index}: ${argument}`),
    user: [
      `Uid: ${Array(4).fill(layout.uid).join(' ')}`,
      `Gid: ${Array(4).fill(layout.uid).join(' ')}`,
      `Groups: ${groups.join(' ')}`,
    ],
    privileges: [
      ...['Inh', 'Prm', 'Eff', 'Bnd', 'Amb'].map((set) => `Cap${set}: 0000000000000000`),
      'NoNewPrivs: 1',
      'Seccomp: 2',
    ],
  };
  const [wrong] = compare(expected, facts);
  if (wrong === undefined) return;
  throw new HypervisorError(
    `The running QEMU does not match its launch spec: ${wrong.part}: ${wrong.detail}`,
  );
}
