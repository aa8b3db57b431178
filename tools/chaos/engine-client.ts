import https from 'node:https';
import tls from 'node:tls';
import type { Credentials } from '../../src/http/osb/credentials-body.ts';
import { until } from '../lib/until.ts';

const timeoutMs = 5_000;
/** The most that is read of an answer, which may be a hostile engine's. Characters. */
const maxLength = 100_000;

/**
 * Tries to reach an engine through a gateway with these credentials.
 * @returns `accepted` if the engine answers, `refused` if the gateway rejects them, `unreachable` if none listens.
 */
export function tryToConnect(
  port: number,
  credentials: Credentials,
  path = '/_ping',
): Promise<'accepted' | 'refused' | 'unreachable'> {
  return new Promise((resolve) => {
    let connected = false;
    let answer = '';
    const end = () => {
      clearTimeout(timer);
      socket.destroy();
      if (/^HTTP\/1\.1 200/.test(answer)) resolve('accepted');
      else resolve(connected ? 'refused' : 'unreachable');
    };
    const timer = setTimeout(end, timeoutMs);
    const socket = tls.connect(
      {
        host: '127.0.0.1',
        port,
        ca: credentials.ca,
        cert: credentials.cert,
        key: credentials.key,
        servername: 'localhost',
      },
      () => socket.write(`GET ${path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n`),
    );
    socket.once('connect', () => (connected = true));
    socket.setEncoding('latin1').on('data', (text: string) => {
      answer += text;
      if (answer.length > maxLength) end();
    });
    socket.once('error', end);
    socket.once('close', end);
  });
}

/** A request to the Engine API through a gateway. @throws Error if there is no answer, or one without success. */
function askEngine(port: number, credentials: Credentials, method: string, path: string, body?: object) {
  const { ca, cert, key } = credentials;
  return new Promise<unknown>((resolve, reject) => {
    const request = https.request(
      {
        ...{ host: '127.0.0.1', port, path, method, ca, cert, key, servername: 'localhost', agent: false },
        signal: AbortSignal.timeout(timeoutMs),
        ...(body && { headers: { 'Content-Type': 'application/json' } }),
      },
      (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (part: string) => {
          text += part;
          if (text.length > maxLength) request.destroy(new Error('the answer is too long'));
        });
        response.once('error', reject);
        response.once('end', () => {
          const isSuccess = response.statusCode === 200 || response.statusCode === 201;
          if (!isSuccess) reject(new Error(`${method} ${path}: ${response.statusCode} ${text}`));
          else resolve(JSON.parse(text));
        });
      },
    );
    request.once('error', reject);
    request.end(body && JSON.stringify(body));
  });
}

/** The volume that a tenant leaves in its host. */
export const markerOf = (instanceId: string) => `marker-${instanceId}`;

/** What a tenant does with its host, through any of these gateways, until one answers. */
export interface EngineClient {
  /** Names of the volumes in the host. */
  volumes(credentials: Credentials): Promise<readonly string[]>;
  /** Makes an empty volume of this name. */
  createVolume(credentials: Credentials, name: string): Promise<void>;
}

/** @param choose chooses the gateway's port for a request. */
export function createEngineClient(choose: () => number, patienceMs: number): EngineClient {
  return {
    volumes: (credentials) =>
      until('the engine lists its volumes', patienceMs, async () => {
        const answer = await askEngine(choose(), credentials, 'GET', '/volumes');
        const { Volumes: volumes } = answer as { Volumes: readonly { Name: string }[] | null };
        return (volumes ?? []).map(({ Name: name }) => name);
      }),
    async createVolume(credentials, name) {
      await until('the engine makes a volume', patienceMs, async () => {
        await askEngine(choose(), credentials, 'POST', '/volumes/create', { Name: name });
        return true;
      });
    },
  };
}
