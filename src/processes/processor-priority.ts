import { setPriority } from 'node:os';
import { writeKernelFile } from '../lib/write-kernel-file.ts';

/** Ten steps of niceness: some nine times the usual weight (sched(7)). */
export const gatewayNiceness = -10;

/**
 * Lets this process have a processor before hosts and other programs: one that relays everybody's bytes would otherwise wait
 * a millisecond each time while all processors are busy. Linux shares processors among sessions first
 * (`autogroup`, sched(7)), and by niceness only within one. To be called before there are other threads, which inherit it.
 * @returns what the operator should know if the kernel refuses; undefined otherwise, also without root.
 */
export async function goFirst(autogroup = '/proc/self/autogroup'): Promise<string | undefined> {
  if (process.getuid?.() !== 0 || process.platform !== 'linux') return undefined;
  try {
    setPriority(0, gatewayNiceness);
    await writeKernelFile(autogroup, String(gatewayNiceness));
    return undefined;
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    // A kernel without autogroups goes by niceness alone.
    if (code === 'ENOENT') return undefined;
    return `The gateway could not be given processor time before hosts (${code}; it needs CAP_SYS_NICE): its streams are slower while all processors are busy`;
  }
}
