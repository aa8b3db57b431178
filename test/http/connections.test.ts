import express, { type Express } from 'express';
import { once } from 'node:events';
import { Agent, request } from 'node:https';
import { connect, type Socket } from 'node:net';
import { afterEach, expect, it } from 'vitest';
import { usualTimeouts } from '../../src/http/limits.ts';
import { listen, type ServerTls } from '../../src/http/listen.ts';
import { eventually } from '../support/eventually.ts';
import { exchange, serverCertificates as certificates } from '../support/http-clients.ts';

const toStop: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const stop of toStop.splice(0).reverse()) await stop();
});
async function serve(
  app: Express,
  options: { tls?: ServerTls; timeouts?: typeof usualTimeouts; maxConnections: number },
) {
  const listener = await listen(app, { host: '127.0.0.1', port: 0, setting: 'X', ...options });
  toStop.push(() => listener.stop());
  return listener.port;
}
const statusOf = (received: string) => Number(/^HTTP\/1\.1 (\d+)/.exec(received)?.[1]);

// Fails with `server.maxConnections` alone: nobody else was served until the silent ones timed out.
it('connections: silent ones beyond the limit end their own oldest ones, and no authenticated one', async () => {
  const app = express().use((request, response) => {
    if (request.get('Authorization') !== undefined) response.locals['platform'] = { id: 'p' };
    response.json({});
  });
  const port = await serve(app, { maxConnections: 20 });
  const open = async (from: string) => {
    const socket = connect({ port, host: '127.0.0.1', localAddress: from }).on('error', () => undefined);
    toStop.push(() => Promise.resolve(void socket.destroy()));
    await once(socket, 'connect');
    return socket;
  };
  const ask = async (socket: Socket, header = '') => {
    socket.write(`GET / HTTP/1.1\r\nHost: x\r\n${header}\r\n`);
    const [answer] = (await once(socket, 'data')) as [Buffer];
    return statusOf(answer.toString());
  };
  const platform = await open('127.0.0.1');
  expect(await ask(platform, 'Authorization: x\r\n')).toBe(200);
  const other = await open('127.0.0.3');
  const silent: Socket[] = [];
  for (let count = 0; count < 200; count += 1) silent.push(await open('127.0.0.1'));
  await eventually(
    'all but 18 silent ones are closed',
    () => silent.filter(({ closed }) => closed).length === 182,
  );
  expect(silent.slice(-18).map(({ closed }) => closed)).not.toContain(true);
  // The authenticated one, a silent one of another address and newcomers of any address.
  expect(await ask(platform, 'Authorization: x\r\n')).toBe(200);
  expect(await ask(other)).toBe(200);
  expect(await ask(await open('127.0.0.1'))).toBe(200);
  expect(await ask(await open('127.0.0.4'))).toBe(200);
});

// Fails if a request on a TLS connection is looked for among the TCP connections by its object.
it('connections: an authenticated TLS connection outlives silent ones', async () => {
  const { authority, cert, key } = await certificates();
  const app = express().use((_request, response) => {
    response.locals['platform'] = { id: 'p' };
    response.json({});
  });
  const tls = { cert, key, clientCas: undefined };
  const port = await serve(app, {
    tls,
    maxConnections: 5,
    timeouts: { ...usualTimeouts, tlsHandshake: 1_000 },
  });
  const agent = new Agent({ keepAlive: true, maxSockets: 1, ca: authority.certificatePem });
  const ask = () =>
    new Promise<number | undefined>((resolve, reject) => {
      request({ host: '127.0.0.1', port, agent }, (response) => {
        // Read now: a socket in the agent's pool has left its answer.
        const { localPort } = response.socket;
        response.resume().on('end', () => {
          resolve(localPort);
        });
      })
        .on('error', reject)
        .end();
    });
  const first = await ask();
  for (let count = 0; count < 20; count += 1) {
    const socket = connect(port, '127.0.0.1').on('error', () => undefined);
    toStop.push(() => Promise.resolve(void socket.destroy()));
    await once(socket, 'connect');
  }
  expect(await ask()).toBe(first);
  agent.destroy();
});

it('connections: a further one is closed if all others are answering authenticated requests', async () => {
  let begun = 0;
  const app = express().use((_request, response) => {
    response.locals['platform'] = { id: 'p' };
    begun += 1;
  });
  const port = await serve(app, { maxConnections: 2 });
  const sockets = [connect(port, '127.0.0.1'), connect(port, '127.0.0.1')];
  for (const socket of sockets) socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  await eventually('both are being answered', () => begun === 2);
  expect(await exchange(port, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n')).toBe('');
  for (const socket of sockets) socket.destroy();
});
