import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import type { Qmp } from './qmp.ts';

/** Leaves the shared memory file out of the migration stream. */
export async function shareMemory(qmp: Qmp): Promise<void> {
  await qmp.execute('migrate-set-capabilities', {
    capabilities: [
      { capability: 'x-ignore-shared', state: true },
      { capability: 'events', state: true },
    ],
  });
}

/**
 * Runs a migration to its end.
 * @throws HypervisorError if QEMU reports that it failed.
 */
export async function migrate(qmp: Qmp, command: 'migrate' | 'migrate-incoming', uri: string): Promise<void> {
  let status = '';
  const finished = qmp.event('MIGRATION', (data) => {
    status = String(data['status']);
    return status === 'completed' || status === 'failed';
  });
  // Awaited below, but it may fail while the command is still running.
  finished.catch(() => undefined);
  await qmp.execute(command, { uri });
  await finished;
  if (status !== 'completed') throw new HypervisorError(`QEMU's ${command} ended as ${status}`);
}

/**
 * Whether QEMU itself says that a load has failed, in an event or on its error output, which it ends with (QEMU's
 * migration/migration.c). A QEMU that was killed, or took too long, says neither.
 */
export const isRefusal = (reasonAndOutput: string): boolean =>
  /migrate-incoming ended as failed|load of migration failed/.test(reasonAndOutput);
