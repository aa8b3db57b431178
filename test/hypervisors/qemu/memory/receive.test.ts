import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { receiveInto } from '../../../../src/hypervisors/qemu/memory/receive.ts';
import { eventually } from '../../../support/eventually.ts';

const own = process.getuid?.() ?? 0;
const mib = 1024 ** 2;

describe('memory receiver', () => {
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
    // The connection is closed while it sends.
    sender.on('error', () => undefined);
    return sender;
  };

  it('memory receiver: stores what was sent, up to the last allowed byte', async () => {
    const receiver = await receive(mib);
    send().end(Buffer.alloc(mib, 7));
    await receiver.received;
    await receiver.close();
    expect((await readFile(file)).equals(Buffer.alloc(mib, 7))).toBe(true);
  });

  // Fails without the limit in `within`: everything was written to disk until the test ended.
  it('memory receiver: stops a sender that exceeds the size limit', async () => {
    const receiver = await receive(mib);
    const endless = send();
    const more = () => {
      while (!endless.destroyed && endless.write(Buffer.alloc(64 * 1024)));
    };
    endless.on('drain', more);
    more();
    await expect(receiver.received).rejects.toThrow(/more than its guest's memory: over 1 MiB/);
    await eventually('it is cut off', () => Promise.resolve(endless.destroyed));
    await receiver.close();
    expect((await stat(file)).size).toBeLessThanOrEqual(mib);
  });

  // Fails without the timer, and if only a connected sender is cut: the call never returned.
  it('memory receiver: times out if the sender never connects or stops half-way', async () => {
    const nobody = await receive(mib, 50);
    await expect(nobody.received).rejects.toThrow(/took longer than 0.05 s/);
    await nobody.close();

    const halfway = await receive(mib, 50);
    send().write('half');
    await expect(halfway.received).rejects.toThrow(/took longer than 0.05 s/);
    await halfway.close();
  });

  it('memory receiver: writes nothing after close, even while data arrives', async () => {
    const receiver = await receive(mib);
    send().write('half');
    await eventually('it has begun', () =>
      readFile(file, 'utf8').then(
        (text) => text === 'half',
        () => false,
      ),
    );
    await receiver.close();
    await expect(receiver.received).rejects.toThrow(/did not send its memory/);
  });
});
