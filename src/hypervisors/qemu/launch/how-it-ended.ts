import type { ChildProcess } from 'node:child_process';

/** How a QEMU process has ended, as an addition to a message; empty if it runs, or is not known. */
export function howItEnded(process: Pick<ChildProcess, 'exitCode' | 'signalCode'> | undefined): string {
  const { exitCode = null, signalCode = null } = process ?? {};
  if (signalCode !== null) return ` (${signalCode})`;
  // With `-no-reboot` a restart, also that after a panic, ends QEMU like a guest that is turned off.
  if (exitCode === 0) return ' (its guest was turned off, restarted or panicked)';
  return exitCode === null ? '' : ` (exit code ${exitCode})`;
}
