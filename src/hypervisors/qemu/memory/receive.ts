import { createWriteStream } from 'node:fs';
import { chmod, chown, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { requireDiskSpace } from '../disk/disks.ts';

/** So often is looked whether the machine still has room, in bytes: others may be writing at the same time. */
const lookEvery = 64 * 1024 ** 2;

export interface Receiver {
  /** Fails where what was sent did not come whole. */
  readonly received: Promise<void>;
  /** Returns when nothing is written to the file any more, whatever the caller does. */
  close(): Promise<void>;
}

/**
 * Writes to a file what one caller sends to a Unix socket that only this user may open. QEMU's sandbox lets it
 * start no program and open no new file, but connect it may. The caller may be a QEMU that was taken over, and it is
 * root who writes, whom no limit of the host holds back: it is refused more than so many bytes and milliseconds, and
 * what the machine keeps for itself.
 */
export async function receiveInto(
  file: string,
  socketPath: string,
  uid: number,
  most: { readonly bytes: number; readonly ms: number },
): Promise<Receiver> {
  await rm(socketPath, { force: true });
  const server = createServer();
  let caller: Socket | undefined;
  let fail: (reason: HypervisorError) => void = () => undefined;
  const received = new Promise<void>((resolve, reject) => {
    fail = (reason) => {
      if (caller === undefined) reject(reason);
      else caller.destroy(reason);
    };
    server.once('error', reject);
    server.once('connection', (socket) => {
      caller = socket;
      server.close();
      const bounded = (chunks: AsyncIterable<Buffer>) => within(chunks, most.bytes, path.dirname(file));
      pipeline(socket, bounded, createWriteStream(file, { mode: 0o600 })).then(resolve, reject);
    });
  });
  // Whoever sends may tell of its own failure first.
  received.catch(() => undefined);
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  await chmod(socketPath, 0o600);
  await chown(socketPath, uid, uid);
  const timer = setTimeout(() => {
    fail(new HypervisorError(`QEMU took longer than ${most.ms / 1000} s to send its memory`));
  }, most.ms);
  return {
    received,
    async close() {
      clearTimeout(timer);
      server.close();
      fail(new HypervisorError('QEMU has not sent its memory'));
      await received.catch(() => undefined);
    },
  };
}

async function* within(
  chunks: AsyncIterable<Buffer>,
  mostBytes: number,
  directory: string,
): AsyncGenerator<Buffer> {
  let total = 0;
  let nextLook = 0;
  for await (const chunk of chunks) {
    total += chunk.length;
    if (total > mostBytes) {
      throw new HypervisorError(
        `QEMU sent more than the memory of its guest: over ${Math.floor(mostBytes / 1024 ** 2)} MiB`,
      );
    }
    if (total >= nextLook) {
      await requireDiskSpace(directory);
      nextLook = total + lookEvery;
    }
    yield chunk;
  }
}
