import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { promisify } from 'node:util';

const execute = promisify(execFile);

/** The hosts' own file system, which can become full. Their users must be able to enter it. */
export async function mountHostsDisk(): Promise<string> {
  const directory = await mkdtemp('/var/tmp/berth-test-hosts-');
  await execute('mount', ['-t', 'tmpfs', '-o', 'size=3g,mode=755', 'tmpfs', directory]);
  return directory;
}

export async function unmountHostsDisk(directory: string): Promise<void> {
  await execute('umount', [directory]);
  await rm(directory, { recursive: true });
}
