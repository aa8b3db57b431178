import { get } from 'node:http';
import { settleWithin } from '../../lib/settle-within.ts';
import { hostHeader } from './engine.ts';

/** Who answered a request to a simulated engine's port. */
export interface ProbeAnswer {
  /** Undefined if it is not a simulated engine. */
  readonly hostId: string | undefined;
  readonly status: number;
}

const timeoutMs = 2_000;

/** Asks what listens at a port of 127.0.0.1. Undefined if nothing does, or it does not answer within two seconds. */
export function probe(port: number, path: string): Promise<ProbeAnswer | undefined> {
  return settleWithin<ProbeAnswer | undefined>(
    timeoutMs,
    () => undefined,
    (settle) => {
      const request = get({ host: '127.0.0.1', port, path, agent: false }, (response) => {
        const hostId = response.headers[hostHeader];
        settle.resolve({
          hostId: typeof hostId === 'string' ? hostId : undefined,
          status: response.statusCode ?? 0,
        });
      });
      const unanswered = () => {
        settle.resolve(undefined);
      };
      request.on('error', unanswered).on('close', unanswered);
      return () => {
        request.destroy();
      };
    },
  );
}
