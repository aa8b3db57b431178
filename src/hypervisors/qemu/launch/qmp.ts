import { connect, type Socket } from 'node:net';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { createLineReader } from '../../../lib/line-reader.ts';
import { settleWithin } from '../../../lib/settle-within.ts';
import { requireNotAbandoned } from '../../abandoned-acts.ts';

/** A connection to QEMU's monitor (QEMU Machine Protocol). */
export interface Qmp {
  /** @throws HypervisorError with QEMU's message if it refuses, or if the connection has ended. */
  execute(command: string, args?: Readonly<Record<string, unknown>>): Promise<unknown>;
  /** Resolves when an event of this name arrives whose data matches. */
  event(name: string, matches: (data: Readonly<Record<string, unknown>>) => boolean): Promise<void>;
}

interface Message {
  readonly QMP?: unknown;
  readonly id?: number;
  readonly return?: unknown;
  readonly error?: { readonly desc?: string };
  readonly event?: string;
  readonly data?: Readonly<Record<string, unknown>>;
}

/** Bytes that QEMU may send over one connection, and in one line; legitimate traffic is far below. */
const maxReceived = { total: 4 * 1024 * 1024, line: 1024 * 1024 };

/**
 * Limit for a whole connection, in milliseconds. QEMU serves one monitor connection at a time, so a greeting can take
 * long; and a compromised QEMU could otherwise block its caller for an unlimited time, one byte at a time.
 */
const connectionTimeoutMs = 30_000;

export interface QmpOptions {
  /** Limit for the whole connection; 30 s by default. */
  readonly timeoutMs?: number;
  /** Ends the connection early. */
  readonly signal?: AbortSignal;
}

/**
 * Connects to a monitor, negotiates QMP capabilities, runs `use`, and closes the connection in any case. A monitor serves
 * one client at a time, so no connection is kept open.
 * @throws HypervisorError if the monitor can't be reached (QEMU has ended) or the timeout expires.
 */
export async function withQmp<T>(
  socketPath: string,
  use: (qmp: Qmp) => Promise<T>,
  { timeoutMs = connectionTimeoutMs, signal }: QmpOptions = {},
): Promise<T> {
  requireNotAbandoned();
  const socket = await open(socketPath, timeoutMs);
  const qmp = createQmp(socket);
  const timer = setTimeout(() => {
    qmp.end(`no end within ${timeoutMs / 1000} s`);
  }, timeoutMs);
  const abort = () => {
    qmp.end('it was aborted');
  };
  signal?.addEventListener('abort', abort, { once: true });
  if (signal?.aborted === true) abort();
  try {
    await qmp.greeted;
    await qmp.execute('qmp_capabilities');
    return await use(qmp);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', abort);
    socket.destroy();
  }
}

function open(socketPath: string, timeoutMs: number): Promise<Socket> {
  const socket = connect(socketPath);
  const unreachable = (reason: string, cause?: Error) => {
    socket.destroy();
    return new HypervisorError(`QEMU's monitor can't be reached: ${reason}`, { cause });
  };
  const atDeadline = (): never => {
    throw unreachable(`no connection within ${timeoutMs / 1000} s`);
  };
  return settleWithin<Socket>(timeoutMs, atDeadline, (settle) => {
    const opened = () => {
      settle.resolve(socket);
    };
    const failed = (cause: Error) => {
      settle.reject(unreachable(cause.message, cause));
    };
    socket.once('connect', opened).once('error', failed);
    return () => {
      socket.off('connect', opened);
      // From here on errors belong to the connection.
      if (socket.destroyed) socket.on('error', () => undefined);
      else socket.off('error', failed);
    };
  });
}

function createQmp(socket: Socket): Qmp & { greeted: Promise<void>; end: (reason: string) => void } {
  const waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  const listeners = new Set<(message: Message) => void>();
  const failed = new Set<(error: Error) => void>();
  let lastId = 0;
  let gone: HypervisorError | undefined;

  let greet: () => void = () => undefined;
  const greeted = new Promise<void>((resolve, reject) => {
    greet = resolve;
    failed.add(reject);
  });
  const fail = (reason: string) => {
    gone ??= new HypervisorError(`The connection to QEMU's monitor has ended: ${reason}`);
    for (const { reject } of waiting.values()) reject(gone);
    for (const reject of failed) reject(gone);
    waiting.clear();
    failed.clear();
  };

  const end = (reason: string) => {
    fail(reason);
    socket.destroy();
  };

  const receive = (line: string) => {
    let message: Message | null;
    try {
      message = JSON.parse(line) as Message | null;
    } catch {
      end('QEMU sent invalid JSON');
      return;
    }
    if (message?.QMP !== undefined) greet();
    if (message?.event !== undefined) for (const listener of listeners) listener(message);
    const request = message?.id === undefined ? undefined : waiting.get(message.id);
    if (request === undefined || message?.id === undefined) return;
    waiting.delete(message.id);
    if (message.error === undefined) request.resolve(message.return);
    else request.reject(new HypervisorError(`QEMU refused: ${message.error.desc ?? 'without a reason'}`));
  };
  const read = createLineReader(maxReceived);
  socket.on('data', (chunk: Buffer) => {
    try {
      for (const line of read(chunk)) if (line.trim() !== '' && gone === undefined) receive(line);
    } catch {
      end('QEMU sent too much data');
    }
  });
  socket.on('error', (error) => {
    fail(error.message);
  });
  socket.on('close', () => {
    fail('the connection was closed');
  });
  return {
    greeted,
    end,
    execute: (command, args) =>
      new Promise((resolve, reject) => {
        if (gone !== undefined) {
          reject(gone);
          return;
        }
        lastId += 1;
        waiting.set(lastId, { resolve, reject });
        socket.write(
          `${JSON.stringify({ execute: command, ...(args && { arguments: args }), id: lastId })}\n`,
        );
      }),
    event: (name, matches) =>
      new Promise((resolve, reject) => {
        if (gone !== undefined) {
          reject(gone);
          return;
        }
        failed.add(reject);
        const listener = (message: Message) => {
          if (message.event !== name || !matches(message.data ?? {})) return;
          listeners.delete(listener);
          failed.delete(reject);
          resolve();
        };
        listeners.add(listener);
      }),
  };
}
