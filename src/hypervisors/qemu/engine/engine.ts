import { request } from 'node:http';
import type { EngineAddress } from '../../../core/hypervisor/network.ts';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';

/** Longest answer that is read, in bytes, because the tenant controls the guest. */
const maxAnswerBytes = 8 * 1024 * 1024;

export interface EngineAnswer {
  readonly status: number;
  readonly body: Buffer;
}

/**
 * Sends one request to a Docker engine and reads the whole answer.
 * @throws HypervisorError if the engine can't be reached, the answer is too long, or the timeout expires.
 */
export function askEngine(
  engine: EngineAddress,
  method: string,
  path: string,
  options: { body?: Buffer; contentType?: string; timeoutMs: number },
): Promise<EngineAnswer> {
  return new Promise((resolve, reject) => {
    const { body, contentType = 'application/json', timeoutMs } = options;
    const sent = request({
      host: engine.host,
      port: engine.port,
      method,
      path,
      // A new connection that is closed afterwards, so that none is frozen into a template.
      agent: false,
      headers: body === undefined ? {} : { 'Content-Type': contentType, 'Content-Length': body.length },
    });
    const timer = setTimeout(() => {
      sent.destroy(new Error(`no answer within ${timeoutMs / 1000} s`));
    }, timeoutMs);
    const fail = (error: Error) => {
      clearTimeout(timer);
      reject(
        new HypervisorError(`The engine did not answer ${method} ${path}: ${error.message}`, {
          cause: error,
        }),
      );
    };
    sent.on('error', fail);
    sent.on('response', (response) => {
      const chunks: Buffer[] = [];
      let size = 0;
      response.on('data', (chunk: Buffer) => {
        size += chunk.length;
        if (size > maxAnswerBytes) sent.destroy(new Error('the answer is too long'));
        else chunks.push(chunk);
      });
      response.on('error', fail);
      response.on('end', () => {
        clearTimeout(timer);
        resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks) });
      });
    });
    sent.end(body);
  });
}

/** Whether the engine answers `GET /_ping`. */
export async function engineAnswers(engine: EngineAddress, timeoutMs: number): Promise<boolean> {
  try {
    return (await askEngine(engine, 'GET', '/_ping', { timeoutMs })).status === 200;
  } catch {
    return false;
  }
}
