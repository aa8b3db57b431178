import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { withQmp } from '../../../../src/hypervisors/qemu/launch/qmp.ts';

/** The monitor may belong to a compromised QEMU. */
describe('QMP connection', () => {
  let folder: string;
  let socketPath: string;
  let server: Server;
  const sockets = new Set<Socket>();
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'berth-qmp-'));
    socketPath = path.join(folder, 'qmp.sock');
  });
  afterEach(async () => {
    for (const socket of sockets) socket.destroy();
    sockets.clear();
    server.close();
    await rm(folder, { recursive: true });
  });

  /** A monitor that greets, accepts the first command, and misbehaves from the second on. */
  async function monitor(then: (socket: Socket, id: number) => void): Promise<void> {
    server = createServer((socket) => {
      sockets.add(socket);
      socket.on('error', () => undefined);
      socket.write('{"QMP": {}}\n');
      socket.setEncoding('utf8').on('data', (text: string) => {
        for (const line of text.split('\n').filter(Boolean)) {
          const { execute, id } = JSON.parse(line) as { execute: string; id: number };
          if (execute === 'qmp_capabilities') socket.write(`{"return": {}, "id": ${id}}\n`);
          else then(socket, id);
        }
      });
    });
    await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  }
  const ask = (options?: { timeoutMs?: number; signal?: AbortSignal }) =>
    withQmp(socketPath, (qmp) => qmp.execute('query-status'), options);

  it('QMP connection: returns an answer that arrives late but within the timeout', async () => {
    await monitor((socket, id) => setTimeout(() => socket.write(`{"return": {"a": 1}, "id": ${id}}\n`), 100));
    expect(await ask({ timeoutMs: 20_000 })).toEqual({ a: 1 });
  });

  // Fails with a limit on silence only (`socket.setTimeout`): the call never returned.
  it('QMP connection: ends at its timeout although QEMU keeps sending', async () => {
    await monitor((socket) => {
      const drip = setInterval(() => socket.write('{"event": "STILL_HERE"}\n'), 10);
      socket.once('close', () => {
        clearInterval(drip);
      });
    });
    await expect(ask({ timeoutMs: 200 })).rejects.toThrow(/no end within 0.2 s/);
  });

  // Fails with a limit on the length of a line only: the call ran into its timeout.
  it('QMP connection: ends if QEMU sends more than the limit', async () => {
    await monitor((socket) => {
      const line = `{"event": "${'x'.repeat(64 * 1024)}"}\n`;
      const more = () => {
        while (!socket.destroyed && socket.write(line));
      };
      socket.on('drain', more);
      more();
    });
    await expect(ask({ timeoutMs: 20_000 })).rejects.toThrow(/sent too much data/);
  });

  it('QMP connection: ends when its signal is aborted', async () => {
    const giveUp = new AbortController();
    await monitor(() => {
      giveUp.abort();
    });
    await expect(ask({ timeoutMs: 20_000, signal: giveUp.signal })).rejects.toThrow(/aborted/);
  });
});
