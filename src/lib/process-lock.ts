import { createServer } from 'node:net';
import { rm } from 'node:fs/promises';
import { isListening } from './is-listening.ts';

/**
 * Makes sure that only one process uses a state directory. The lock is a listening Unix socket: the kernel closes it
 * when the process ends, however it ends.
 * @throws Error if another process has the lock.
 */
export async function acquireProcessLock(file: string, what: string): Promise<{ release(): Promise<void> }> {
  if (await isListening(file)) {
    throw new Error(`another Berth uses ${what}: stop it, or set BERTH_STATE_DIR to another folder`);
  }
  await rm(file, { force: true });
  const server = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(file, resolve);
  });
  server.unref();
  return {
    release: () =>
      new Promise((resolve) => {
        server.close(() => {
          resolve();
        });
      }),
  };
}
