import { get } from 'node:http';
import { hostHeader } from './engine.ts';

/** Who answered a request to a simulated engine's port. */
export interface ProbeAnswer {
  /** Undefined if it is not a simulated engine. */
  readonly hostId: string | undefined;
  readonly status: number;
}

/** Asks what listens at a port of 127.0.0.1. Undefined if nothing does, or it does not answer within two seconds. */
export function probe(port: number, path: string): Promise<ProbeAnswer | undefined> {
  return new Promise((resolve) => {
    const request = get({ host: '127.0.0.1', port, path, agent: false, timeout: 2000 }, (response) => {
      response.resume();
      const hostId = response.headers[hostHeader];
      resolve({
        hostId: typeof hostId === 'string' ? hostId : undefined,
        status: response.statusCode ?? 0,
      });
    });
    request.once('timeout', () => request.destroy());
    request.once('error', () => {
      resolve(undefined);
    });
  });
}
