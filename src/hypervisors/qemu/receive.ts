import { createWriteStream } from 'node:fs';
import { chmod, chown, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { pipeline } from 'node:stream/promises';

/**
 * Writes to a file what one caller sends to a Unix socket that only this user may open. QEMU's sandbox lets it
 * start no program and open no new file, but connect it may.
 */
export async function receiveInto(
  file: string,
  socketPath: string,
  uid: number,
): Promise<{ received: Promise<void>; close: () => void }> {
  await rm(socketPath, { force: true });
  const server = createServer();
  const received = new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.once('connection', (socket) => {
      pipeline(socket, createWriteStream(file, { mode: 0o600 })).then(resolve, reject);
    });
  });
  // Whoever sends tells of its own failure; this one is awaited only where it did not fail.
  received.catch(() => undefined);
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  await chmod(socketPath, 0o600);
  await chown(socketPath, uid, uid);
  return {
    received,
    close: () => {
      server.close();
    },
  };
}
