import type { ClientRequest } from 'node:http';
import { request } from 'node:https';
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
