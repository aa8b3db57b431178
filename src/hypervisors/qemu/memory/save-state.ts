import type { HostShape } from '../../../core/hypervisor/host-spec.ts';
import { migrate, shareMemory } from '../launch/migration.ts';
import { withQmp } from '../launch/qmp.ts';
import { largestSaved, memoryBytes } from '../launch/sizes.ts';
import type { HostLayout } from '../layout.ts';
import type { VmBounds } from '../options.ts';
import { difference } from './difference.ts';
import type { MemoryBase } from './memory-base.ts';
import { receiveInto } from './receive.ts';

/** What a VM was started with and can grow to, and what it has now. */
export interface GrownSize {
  readonly bounds: VmBounds;
  readonly shape: HostShape;
}

/**
 * Stops a VM's CPUs, and writes to a file its device state and what its memory differs in from the base. Afterwards, also
 * after a failure, the VM can be resumed or killed. After a failure the caller wipes the file.
 */
export async function saveState(
  layout: HostLayout,
  file: string,
  { bounds, shape }: GrownSize,
  base: MemoryBase,
  { timeoutMs, reserveMib }: { readonly timeoutMs: number; readonly reserveMib?: number | undefined },
): Promise<void> {
  const limits = { bytes: largestSaved(shape), ms: timeoutMs, reserveMib };
  const receiver = await receiveInto(file, layout.stateSocket, layout.uid, limits, (stream) =>
    difference(stream, base, memoryBytes(bounds)),
  );
  const abort = new AbortController();
  receiver.received.catch(() => {
    abort.abort();
  });
  try {
    const sent = withQmp(
      layout.qmpSocket,
      async (qmp) => {
        await qmp.execute('stop');
        await shareMemory(qmp);
        // Nothing else uses the link; QEMU's default of 32 MiB/s would make a tenant wait.
        await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 4 * 1024 ** 3 });
        await migrate(qmp, 'migrate', `unix:${layout.stateSocket}`);
      },
      { timeoutMs, signal: abort.signal },
    );
    // The receiver's refusal says more than the connection that ended because of it.
    await sent.catch(async (error: unknown) => {
      if (abort.signal.aborted) await receiver.received;
      throw error;
    });
    await receiver.received;
  } finally {
    await receiver.close();
  }
}
