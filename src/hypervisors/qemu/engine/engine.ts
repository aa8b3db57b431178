import { request } from 'node:http';
import type { EngineAddress } from '../../../core/hypervisor/network.ts';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';

/** A guest is its tenant's: no answer of its engine is read further, in bytes. */
const longestAnswer = 8 * 1024 * 1024;

export interface EngineAnswer {
  readonly status: number;
  readonly body: Buffer;
}

/**
 * One request to a Docker engine, its answer read to the end.
 * @throws HypervisorError where it can't be reached or takes too long.
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
      // A connection of its own, which is gone afterwards: nothing of it is frozen into a template.
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
        if (size > longestAnswer) sent.destroy(new Error('the answer is too long'));
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
