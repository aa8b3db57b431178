import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { receiveInto } from '../../../../src/hypervisors/qemu/memory/receive.ts';
import { eventually } from '../../../support/eventually.ts';

const own = process.getuid?.() ?? 0;
const mib = 1024 ** 2;

describe("the receiver of a machine's memory", () => {
  let folder: string;
  let file: string;
  let socketPath: string;
  let sender: Socket | undefined;
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'berth-receive-'));
    file = path.join(folder, 'memory');
    socketPath = path.join(folder, 'socket');
  });
  afterEach(async () => {
    sender?.destroy();
    await rm(folder, { recursive: true });
  });

  const receive = (bytes: number, ms = 60_000) => receiveInto(file, socketPath, own, { bytes, ms });
  const send = () => {
    sender = connect(socketPath);
    // It is cut off while it sends.
    sender.on('error', () => undefined);
    return sender;
  };

  it('keeps what was sent, up to the last byte that is allowed', async () => {
    const receiver = await receive(mib);
    send().end(Buffer.alloc(mib, 7));
    await receiver.received;
    await receiver.close();
    expect((await readFile(file)).equals(Buffer.alloc(mib, 7))).toBe(true);
  });

  // Seen to fail without the limit in `within`: all that was sent came to the disk, until the test was over.
  it('takes no more than is allowed from who sends for ever', async () => {
    const receiver = await receive(mib);
    const endless = send();
    const more = () => {
      while (!endless.destroyed && endless.write(Buffer.alloc(64 * 1024)));
    };
    endless.on('drain', more);
    more();
    await expect(receiver.received).rejects.toThrow(/more than the memory of its guest: over 1 MiB/);
    await eventually('it is cut off', () => Promise.resolve(endless.destroyed));
    await receiver.close();
    expect((await stat(file)).size).toBeLessThanOrEqual(mib);
  });

  // Seen to fail without the timer: it never came back. And where only a caller that is there is cut off.
  it('does not wait for ever for who sends nothing, or stops in the middle', async () => {
    const nobody = await receive(mib, 50);
    await expect(nobody.received).rejects.toThrow(/took longer than 0.05 s/);
    await nobody.close();

    const halfway = await receive(mib, 50);
    send().write('half');
    await expect(halfway.received).rejects.toThrow(/took longer than 0.05 s/);
    await halfway.close();
  });

  it('is closed while somebody sends, and writes no more', async () => {
    const receiver = await receive(mib);
    send().write('half');
    await eventually('it has begun', () =>
      readFile(file, 'utf8').then(
        (text) => text === 'half',
        () => false,
      ),
    );
    await receiver.close();
    await expect(receiver.received).rejects.toThrow(/has not sent its memory/);
  });
});
