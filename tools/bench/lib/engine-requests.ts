import { once } from 'node:events';
import type { ClientRequest, IncomingMessage } from 'node:http';
import { request } from 'node:https';
import { json } from 'node:stream/consumers';
import type { Credentials } from '../../../src/http/osb/credentials-body.ts';

/** A request through the gateway to a binding's engine, on a new connection. */
export function openRequest(credentials: Credentials, path: string): ClientRequest {
  const { hostname, port } = new URL(credentials.docker_host);
  return request({
    host: hostname,
    port,
    path,
    ca: credentials.ca,
    cert: credentials.cert,
    key: credentials.key,
    agent: false,
  });
}

/** Whether the engine answers `_ping` through the gateway within the timeout, in milliseconds. */
export function ping(credentials: Credentials, timeoutMs = 30_000): Promise<boolean> {
  return new Promise((resolve) => {
    const sent = openRequest(credentials, '/_ping');
    sent.setTimeout(timeoutMs, () => sent.destroy(new Error(`no answer within ${timeoutMs} ms`)));
    sent.on('response', (response) => {
      response.resume().on('end', () => {
        resolve(response.statusCode === 200);
      });
    });
    sent.on('error', () => {
      resolve(false);
    });
    sent.end();
  });
}

/** Processors and bytes of memory that the engine has, as in `docker info`. @throws Error if it doesn't answer. */
export async function engineSize(
  credentials: Credentials,
  timeoutMs = 30_000,
): Promise<{ NCPU: number; MemTotal: number }> {
  const sent = openRequest(credentials, '/info');
  sent.setTimeout(timeoutMs, () => sent.destroy(new Error(`no answer within ${timeoutMs} ms`)));
  sent.end();
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  const answer = await json(response);
  if (response.statusCode !== 200) throw new Error(`the engine refused: ${JSON.stringify(answer)}`);
  return answer as { NCPU: number; MemTotal: number };
}
