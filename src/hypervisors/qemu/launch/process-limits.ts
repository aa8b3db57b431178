import { totalmem } from 'node:os';
import type { HostShape } from '../../../core/hypervisor/host-spec.ts';
import { writeKernelFile } from '../../../lib/write-kernel-file.ts';
import { runTool } from '../../run-tool.ts';
import { qemuOf } from '../integrity/facts.ts';
import type { HostLayout } from '../layout.ts';
import type { Cgroups } from './cgroups.ts';
import { oomScore } from './oom-score.ts';
import { largestFile } from './sizes.ts';

/**
 * Gives a running VM the limits of its new size: how large its files may be (RLIMIT_FSIZE, setrlimit(2)), and when the kernel's
 * OOM killer ends it.
 * @param overcommit how many times the node's memory is promised to hosts.
 */
export async function raiseProcessLimits(
  layout: HostLayout,
  cgroups: Cgroups,
  shape: HostShape,
  overcommit: number,
): Promise<void> {
  const pid = await qemuOf(layout, cgroups);
  const bytes = largestFile(shape);
  // As its user, who may raise it up to the limit that the VM was started with: root in a container may not.
  const user = [`--reuid=${layout.uid}`, `--regid=${layout.uid}`, '--clear-groups'];
  await runTool('setpriv', [...user, 'prlimit', `--pid=${pid}`, `--fsize=${bytes}:`]);
  const score = oomScore(shape, { totalMib: totalmem() / 1024 ** 2, overcommit });
  await writeKernelFile(`/proc/${pid}/oom_score_adj`, String(score)).catch((error: unknown) => {
    // Without CAP_SYS_RESOURCE it can't be lowered: until its next start the VM is ended as early as one of its former size.
    if ((error as NodeJS.ErrnoException).code !== 'EACCES') throw error;
  });
}
