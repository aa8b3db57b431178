import type { ClientRequest } from 'node:http';
import { request } from 'node:https';
import type { Credentials } from '../../src/http/osb/credentials-body.ts';

/** A request to the engine of a binding, through the gateway, on a connection of its own. */
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

/** Whether the engine answers `_ping` through the gateway, within so many milliseconds. */
export function ping(credentials: Credentials, timeoutMs = 30_000): Promise<boolean> {
  return new Promise((resolve) => {
    const sent = openRequest(credentials, '/_ping');
    sent.setTimeout(timeoutMs, () => sent.destroy(new Error('no answer in time')));
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
