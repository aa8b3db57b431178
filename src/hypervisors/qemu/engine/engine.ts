import { request } from 'node:http';
import type { EngineAddress } from '../../../core/hypervisor/network.ts';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { createBoundedBuffer } from '../../../lib/bounded-buffer.ts';
import { createFairLimit } from '../../../lib/fair-limit.ts';
import { settleWithin } from '../../../lib/settle-within.ts';

/**
 * Calls to the engines of all hosts at once; the others wait, within their timeouts. Together they take at most
 * `atOnce` times {@link maxAnswerBytes}.
 */
const calls = createFairLimit({ atOnce: 32, perOwner: 8 });

/** Longest answer that a caller may ask for, in bytes. */
const maxAnswerBytes = 1024 * 1024;
/** Headers and trailers, in bytes: dockerd sends a few hundred. */
const maxHeaderBytes = 8 * 1024;
/**
 * What may be on the wire besides the answer itself: headers and the sizes of chunks, in bytes. dockerd sends chunks of
 * 2 KiB and more; one-byte chunks would cost six times the answer's length, and as much time.
 */
const maxFramingBytes = 64 * 1024;

export interface EngineRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  readonly path: string;
  readonly body?: Buffer;
  /** `application/json` by default. */
  readonly contentType?: string;
  /** For the whole call, the wait for its turn included, in milliseconds. */
  readonly timeoutMs: number;
  /** Longest answer that is read, in bytes; at most 1 MiB. */
  readonly maxBytes: number;
}

export interface EngineAnswer {
  readonly status: number;
  readonly body: Buffer;
}

/**
 * Sends one request to a Docker engine and reads the whole answer. A tenant is root in the guest, so what answers may
 * not be an engine: time, bytes on the wire and memory are limited, also over all hosts, and the call ends within its
 * timeout, also if nothing or something invalid is sent.
 * @throws HypervisorError if the engine can't be reached, the answer is not a complete final one, it is too long, or the
 *   timeout expires.
 */
export function askEngine(engine: EngineAddress, asked: EngineRequest): Promise<EngineAnswer> {
  const { method, path, body, contentType = 'application/json', timeoutMs } = asked;
  const maxBytes = Math.min(asked.maxBytes, maxAnswerBytes);
  const problem = (reason: string, cause?: Error) =>
    new HypervisorError(`The engine did not answer ${method} ${path}: ${reason}`, { cause });
  const atDeadline = (): never => {
    throw problem(`no answer within ${timeoutMs / 1000} s`);
  };

  return settleWithin<EngineAnswer>(timeoutMs, atDeadline, (settle) => {
    let stop: () => void = () => undefined;
    const fail = (reason: string, cause?: Error) => {
      settle.reject(problem(reason, cause));
    };
    const send = () => {
      const sent = request({
        host: engine.host,
        port: engine.port,
        method,
        path,
        // A new connection that is closed afterwards, so that none is frozen into a template.
        agent: false,
        insecureHTTPParser: false,
        maxHeaderSize: maxHeaderBytes,
        headers: body === undefined ? {} : { 'Content-Type': contentType, 'Content-Length': body.length },
      });
      stop = () => {
        // A destroyed request can still emit an error.
        sent.on('error', () => undefined).destroy();
      };
      sent.on('error', (error) => {
        fail(error.message, error);
      });
      // Without a listener an upgrade would only close the connection, and nothing would be emitted but `close`.
      sent.on('upgrade', () => {
        fail('it switched to another protocol');
      });
      // Nothing was sent that asks for one, and a guest could send them without end.
      sent.on('information', ({ statusCode }) => {
        fail(`it sent an interim answer (${statusCode})`);
      });
      sent.on('close', () => {
        fail('the connection was closed before the answer was complete');
      });
      sent.on('response', (response) => {
        const answer = createBoundedBuffer(maxBytes);
        response.on('data', (chunk: Buffer) => {
          const wireBytes = response.socket.bytesRead;
          if (!answer.append(chunk) || wireBytes > maxBytes + maxFramingBytes) fail('the answer is too long');
        });
        response.on('error', (error) => {
          fail(error.message, error);
        });
        response.on('end', () => {
          settle.resolve({ status: response.statusCode ?? 0, body: answer.content() });
        });
      });
      sent.end(body);
    };
    const leave = calls.enter(`${engine.host}:${engine.port}`, send);
    return () => {
      stop();
      leave();
    };
  });
}

/** Whether the engine answers `GET /_ping`. */
export async function engineAnswers(engine: EngineAddress, timeoutMs: number): Promise<boolean> {
  try {
    const ping = { method: 'GET', path: '/_ping', timeoutMs, maxBytes: 1_024 } as const;
    return (await askEngine(engine, ping)).status === 200;
  } catch {
    return false;
  }
}
