import { EventEmitter } from 'node:events';
import type net from 'node:net';

/** What a client may send before it has proved its certificate. Bytes. */
export interface HandshakeAllowance {
  /** Until the gateway's first answer: a ClientHello. */
  readonly hello: number;
  /** Afterwards: the certificate with its chain, and a second ClientHello if the first one was not enough. */
  readonly flight: number;
}

/**
 * The TCP socket as TLS sees it. Until the handshake has ended, bytes are handed to TLS one step at a time, each
 * when `deps.requestTurn` runs it, and only as many as are allowed: OpenSSL verifies every signature of any chain
 * that it is given, and Node can't limit the chain. Afterwards, bytes pass unchanged.
 *
 * Not a Duplex: TLS calls the few methods below (Node's JSStreamSocket), and a second stream between it and the
 * socket costs a fifth of the throughput.
 */
export class HandshakeTransport extends EventEmitter {
  readonly readable = true;
  readonly writable = true;
  readonly readableObjectMode = false;
  readonly writableObjectMode = false;
  readonly #socket: net.Socket;
  readonly #deps: TransportDeps;
  /** Bytes that TLS may still be handed before the handshake has ended. */
  #allowed: number;
  #hasAnswered = false;
  #isOpen = false;
  #isEnded = false;
  #hasPassedEnd = false;
  /** TLS wants to be handed data. */
  #isWanted = true;
  #held: Buffer[] = [];
  #isWaiting = false;
  #withdrawTurn: () => void = () => undefined;

  constructor(socket: net.Socket, deps: TransportDeps) {
    super();
    this.#socket = socket;
    this.#deps = deps;
    this.#allowed = deps.allowance.hello;
    socket.on('data', (chunk: Buffer) => {
      if (this.#isOpen) this.emit('data', chunk);
      else this.#hold(chunk);
    });
    socket.once('end', () => {
      this.#isEnded = true;
      this.#passEnd();
    });
    socket.once('close', () => {
      this.#withdrawTurn();
      this.#held = [];
      // TLS waits for an end that it would not hear of otherwise.
      this.#isEnded = true;
      this.#passEnd();
      this.emit('close');
    });
  }

  /** The handshake has ended: from now on, everything passes. To be called while TLS is being handed data. */
  open(): void {
    this.#isOpen = true;
  }

  #hold(chunk: Buffer): void {
    this.#socket.pause();
    // A client with a binding waits for the answer to its hello, so that nothing more is held for it.
    if (!this.#hasAnswered && chunk.length > this.#allowed) {
      this.#deps.onExcess();
      return;
    }
    this.#held.push(chunk);
    if (this.#isWaiting) return;
    this.#isWaiting = true;
    // A handshake that has begun is completed first, the shortest before all: a chain of costly certificates is longer than
    // the one certificate of a Berth client. Of the hellos, the last one: in a flood, it is the one still waited for.
    const order = this.#hasAnswered ? Math.min(chunk.length, this.#allowed) : Infinity;
    this.#withdrawTurn = this.#deps.requestTurn(order, () => {
      this.#handOver();
    });
  }

  /** Hands TLS what is allowed of the bytes that are held. */
  #handOver(): void {
    this.#isWaiting = false;
    const held = this.#held.length === 1 ? (this.#held[0] as Buffer) : Buffer.concat(this.#held);
    const part = held.subarray(0, this.#allowed);
    const rest = held.subarray(part.length);
    this.#held = rest.length > 0 ? [rest] : [];
    this.#allowed -= part.length;
    if (part.length > 0) this.emit('data', part);
    if (this.#socket.destroyed) return;
    if (this.#isOpen) {
      this.#passAll();
    } else if (rest.length > 0) {
      this.#deps.onExcess();
    } else {
      this.#passEnd();
      this.#socket.resume();
    }
  }

  #passAll(): void {
    const held = this.#held;
    this.#held = [];
    for (const chunk of held) this.emit('data', chunk);
    this.#passEnd();
    if (this.#isWanted) this.#socket.resume();
  }

  #passEnd(): void {
    if (!this.#isEnded || this.#hasPassedEnd || this.#held.length > 0) return;
    this.#hasPassedEnd = true;
    this.emit('end');
  }

  pause(): this {
    this.#isWanted = false;
    if (this.#isOpen) this.#socket.pause();
    return this;
  }

  resume(): this {
    this.#isWanted = true;
    if (this.#isOpen && this.#held.length === 0) this.#socket.resume();
    return this;
  }

  write(chunk: Buffer, done: (error?: Error | null) => void): boolean {
    if (!this.#hasAnswered) {
      this.#hasAnswered = true;
      this.#allowed = this.#deps.allowance.flight;
    }
    return this.#socket.write(chunk, done);
  }

  cork(): void {
    this.#socket.cork();
  }

  uncork(): void {
    this.#socket.uncork();
  }

  end(done: () => void): this {
    this.#socket.end(done);
    return this;
  }

  destroy(): this {
    this.#socket.destroy();
    return this;
  }

  get destroyed(): boolean {
    return this.#socket.destroyed;
  }
}

export interface TransportDeps {
  readonly allowance: HandshakeAllowance;
  /** Calls `step` when it is this client's turn; smaller orders first, of equal ones the last. @returns a function that withdraws it. */
  readonly requestTurn: (order: number, step: () => void) => () => void;
  /** The client has sent more than is allowed. Nothing more is handed to TLS. */
  readonly onExcess: () => void;
}
