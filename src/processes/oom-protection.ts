import { writeKernelFile } from '../lib/write-kernel-file.ts';

/** Nearly never: -1000 would be never, and then a leak in Berth would end everything else. */
export const protectedScore = -900;

/**
 * If the node runs out of memory, the kernel then ends hosts (launch/oom-score.ts) and everything else first
 * (`oom_score_adj`, proc(5)). Child processes, also unprivileged ones and the embedded Postgres, inherit it.
 * @returns what the operator should know if the kernel refuses; undefined otherwise, also without root.
 */
export async function protectFromOomKiller(file = '/proc/self/oom_score_adj'): Promise<string | undefined> {
  if (process.getuid?.() !== 0 || process.platform !== 'linux') return undefined;
  try {
    await writeKernelFile(file, String(protectedScore));
    return undefined;
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    return `Berth and Postgres could not be protected from the kernel's OOM killer (${code}; it needs CAP_SYS_RESOURCE): hosts are still ended first, but other programs of this node are not`;
  }
}
