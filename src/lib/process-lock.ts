import { createServer } from 'node:net';
import { rm } from 'node:fs/promises';
import { isListening } from './is-listening.ts';

/**
 * Makes sure that one process only works on a state directory. The lock is a listening Unix socket: the kernel
 * ends it with its process, however that ends.
 * @throws Error where another holds it.
 */
export async function acquireProcessLock(file: string, what: string): Promise<{ release(): Promise<void> }> {
  if (await isListening(file)) {
    throw new Error(`another Berth works on ${what}: stop it, or set BERTH_STATE_DIR to another folder`);
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
