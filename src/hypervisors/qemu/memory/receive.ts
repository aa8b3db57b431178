import { createWriteStream } from 'node:fs';
import { chmod, chown, rm } from 'node:fs/promises';
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { requireDiskSpace } from '../disk/disks.ts';

/** Free disk space is checked each time this many bytes were written, because others write at the same time. */
const checkSpaceEvery = 64 * 1024 ** 2;

/** Changes what is received before it is written. */
export type Filter = (chunks: AsyncIterable<Buffer>) => AsyncIterable<Buffer>;

export interface Receiver {
  /** Rejects if the data did not arrive completely. */
  readonly received: Promise<void>;
  /** Resolves once nothing is written to the file any more, whatever the sender does. */
  close(): Promise<void>;
}

/**
 * Writes to a file what one sender sends to a Unix socket that only user `uid` may open. QEMU's sandbox forbids it to
 * start programs and open files, but not to connect. The sender may be a compromised QEMU, and the writer is root, to
 * whom no limit of the host applies: so bytes, time and the node's disk reserve are limited here.
 * @param filter is given no more than the limit of bytes.
 */
export async function receiveInto(
  file: string,
  socketPath: string,
  uid: number,
  limits: { readonly bytes: number; readonly ms: number; readonly reserveMib?: number | undefined },
  filter: Filter = (chunks) => chunks,
): Promise<Receiver> {
  await rm(socketPath, { force: true });
  const server = createServer();
  let sender: Socket | undefined;
  let fail: (reason: HypervisorError) => void = () => undefined;
  const received = new Promise<void>((resolve, reject) => {
    fail = (reason) => {
      if (sender === undefined) reject(reason);
      else sender.destroy(reason);
    };
    server.once('error', reject);
    server.once('connection', (socket) => {
      sender = socket;
      server.close();
      const bounded = (chunks: AsyncIterable<Buffer>) => filter(within(chunks, limits, path.dirname(file)));
      pipeline(socket, bounded, createWriteStream(file, { mode: 0o600 })).then(resolve, reject);
    });
  });
  // The caller may report the sender's failure first.
  received.catch(() => undefined);
  // Also rejects if the socket can't be made.
  await once(server.listen(socketPath), 'listening');
  await chmod(socketPath, 0o600);
  await chown(socketPath, uid, uid);
  const timer = setTimeout(() => {
    fail(new HypervisorError(`QEMU took longer than ${limits.ms / 1000} s to send its memory`));
  }, limits.ms);
  return {
    received,
    async close() {
      clearTimeout(timer);
      server.close();
      fail(new HypervisorError('QEMU did not send its memory'));
      await received.catch(() => undefined);
    },
  };
}

async function* within(
  chunks: AsyncIterable<Buffer>,
  { bytes: maxBytes, reserveMib }: { readonly bytes: number; readonly reserveMib?: number | undefined },
  directory: string,
): AsyncGenerator<Buffer> {
  let total = 0;
  let nextCheck = 0;
  for await (const chunk of chunks) {
    total += chunk.length;
    if (total > maxBytes) {
      throw new HypervisorError(
        `QEMU sent more than its guest's memory: over ${Math.floor(maxBytes / 1024 ** 2)} MiB`,
      );
    }
    if (total >= nextCheck) {
      await requireDiskSpace(directory, { reserveMib });
      nextCheck = total + checkSpaceEvery;
    }
    yield chunk;
  }
}
