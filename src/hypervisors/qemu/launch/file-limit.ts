import type { HostShape } from '../../../core/hypervisor/host-spec.ts';
import { runTool } from '../../run-tool.ts';
import { qemuOf } from '../integrity/facts.ts';
import type { HostLayout } from '../layout.ts';
import type { Cgroups } from './cgroups.ts';
import { largestFile } from './sizes.ts';

/** Lets a running VM's files be as large as its new size needs (RLIMIT_FSIZE, setrlimit(2)). */
export async function raiseFileLimit(layout: HostLayout, cgroups: Cgroups, shape: HostShape): Promise<void> {
  const pid = await qemuOf(layout, cgroups);
  const bytes = largestFile(shape);
  // As its user, who may raise it up to the limit that the VM was started with: root in a container may not.
  const user = [`--reuid=${layout.uid}`, `--regid=${layout.uid}`, '--clear-groups'];
  await runTool('setpriv', [...user, 'prlimit', `--pid=${pid}`, `--fsize=${bytes}:`]);
}
