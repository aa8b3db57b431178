import { spawn } from 'node:child_process';
import { type FileHandle, open } from 'node:fs/promises';
import path from 'node:path';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { toolEnvironment } from '../../run-tool.ts';

const timeoutMs = 120_000;

/**
 * Copies a file into sealed memory (memfd_create(2), file seals), which cannot be changed any more. It exists until its
 * last descriptor is closed; all hosts restored from it share its pages.
 */
export const openSealedCopy = (libexecDirectory: string, file: string) =>
  openCopy(libexecDirectory, file, ['sealed']);

/** Copies a file into memory for one host, charged to that host's control groups. */
export const openOwnCopy = (libexecDirectory: string, file: string, cgroups: readonly string[]) =>
  openCopy(libexecDirectory, file, ['own', cgroups.join(',')]);

async function openCopy(
  libexecDirectory: string,
  file: string,
  kind: readonly string[],
): Promise<FileHandle> {
  const child = spawn('perl', [path.join(libexecDirectory, 'berth-memory-copy'), file, ...kind], {
    env: toolEnvironment,
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let errorOutput = '';
  child.stderr
    .setEncoding('utf8')
    .on('data', (text: string) => (errorOutput = (errorOutput + text).slice(-2000)));
  try {
    const descriptor = await new Promise<string>((resolve, reject) => {
      let printed = '';
      const timer = setTimeout(() => {
        reject(new HypervisorError(`${file} could not be copied into memory in time`));
      }, timeoutMs);
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        printed += text;
        if (!printed.endsWith('\n')) return;
        clearTimeout(timer);
        resolve(printed.trim());
      });
      child.once('error', reject);
      child.once('close', () => {
        clearTimeout(timer);
        reject(new HypervisorError(`${file} could not be copied into memory: ${errorOutput.trim()}`));
      });
    });
    // Node.js can't create such memory, but it can keep a descriptor of it: the helper process may end.
    return await open(`/proc/${child.pid ?? 0}/fd/${descriptor}`, 'r+');
  } finally {
    child.stdin.end();
    child.kill('SIGKILL');
  }
}
