import { connect, type Socket } from 'node:net';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';

/** A conversation with QEMU's monitor (QEMU Machine Protocol). */
export interface Qmp {
  /** @throws HypervisorError with QEMU's own words where it refuses, or where it has gone. */
  execute(command: string, args?: Readonly<Record<string, unknown>>): Promise<unknown>;
  /** Resolves with an event's data when it comes. */
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

/** All that QEMU honestly says in one conversation is far shorter, in characters. */
const mostSaid = 4 * 1024 * 1024;

/**
 * QEMU serves one monitor connection at a time: behind a busy one a greeting can take long. Milliseconds, as for the
 * whole conversation: a QEMU that was taken over could otherwise hold whoever acts on its host for ever, a word at a
 * time.
 */
const conversationTimeoutMs = 30_000;

export interface QmpOptions {
  /** The whole conversation may take so long; left out: half a minute. */
  readonly timeoutMs?: number;
  /** Ends the conversation early. */
  readonly giveUp?: AbortSignal;
}

/**
 * Connects, says what must be said first, and hands the conversation to `talk`; ends it in any case. One at a
 * time may talk to a monitor, so no connection is kept.
 * @throws HypervisorError where the monitor can't be reached: QEMU has gone; or where it takes too long.
 */
export async function withQmp<T>(
  socketPath: string,
  talk: (qmp: Qmp) => Promise<T>,
  { timeoutMs = conversationTimeoutMs, giveUp }: QmpOptions = {},
): Promise<T> {
  const socket = await open(socketPath);
  const qmp = converse(socket);
  const timer = setTimeout(() => {
    qmp.end(`it took longer than ${timeoutMs / 1000} s`);
  }, timeoutMs);
  const abort = () => {
    qmp.end('it was given up');
  };
  giveUp?.addEventListener('abort', abort, { once: true });
  if (giveUp?.aborted === true) abort();
  try {
    await qmp.greeted;
    await qmp.execute('qmp_capabilities');
    return await talk(qmp);
  } finally {
    clearTimeout(timer);
    giveUp?.removeEventListener('abort', abort);
    socket.destroy();
  }
}

function open(socketPath: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(socketPath);
    socket.once('connect', () => {
      resolve(socket);
    });
    socket.once('error', (cause) => {
      reject(new HypervisorError(`QEMU's monitor can't be reached: ${cause.message}`, { cause }));
    });
  });
}

function converse(socket: Socket): Qmp & { greeted: Promise<void>; end: (reason: string) => void } {
  const waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  const listening = new Set<(message: Message) => void>();
  const failed = new Set<(error: Error) => void>();
  let lastId = 0;
  let gone: HypervisorError | undefined;

  let greet: () => void = () => undefined;
  const greeted = new Promise<void>((resolve, reject) => {
    greet = resolve;
    failed.add(reject);
  });
  const fail = (reason: string) => {
    gone ??= new HypervisorError(`The conversation with QEMU has ended: ${reason}`);
    for (const { reject } of waiting.values()) reject(gone);
    for (const reject of failed) reject(gone);
    waiting.clear();
    failed.clear();
  };

  const end = (reason: string) => {
    fail(reason);
    socket.destroy();
  };

  let said = 0;
  let received = '';
  socket.setEncoding('utf8').on('data', (text: string) => {
    said += text.length;
    if (said > mostSaid) {
      end('it said too much');
      return;
    }
    const lines = (received + text).split('\n');
    received = lines.pop() ?? '';
    for (const line of lines) {
      if (line.trim() === '') continue;
      let message: Message;
      try {
        message = JSON.parse(line) as Message;
      } catch {
        end('what it said was no JSON');
        return;
      }
      if (message.QMP !== undefined) greet();
      if (message.event !== undefined) for (const heard of listening) heard(message);
      const asked = message.id === undefined ? undefined : waiting.get(message.id);
      if (asked === undefined || message.id === undefined) continue;
      waiting.delete(message.id);
      if (message.error === undefined) asked.resolve(message.return);
      else asked.reject(new HypervisorError(`QEMU refused: ${message.error.desc ?? 'without a reason'}`));
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
        failed.add(reject);
        const heard = (message: Message) => {
          if (message.event !== name || !matches(message.data ?? {})) return;
          listening.delete(heard);
          failed.delete(reject);
          resolve();
        };
        listening.add(heard);
      }),
  };
}
