import express, { type Express } from 'express';
import { connect } from 'node:net';
import { request } from 'node:https';
import supertest from 'supertest';
import { afterEach, describe, expect, inject, it } from 'vitest';
import { errorHandler } from '../../src/http/errors.ts';
import { usualTimeouts } from '../../src/http/limits.ts';
import { type HttpListener, listen, type ServerTls } from '../../src/http/listen.ts';
import { rateLimit } from '../../src/http/rate-limit.ts';
import { credentials, instance, makeTestBroker, provisionBody } from '../support/broker.ts';
import { exchange, serverCertificates as certificates } from '../support/http-clients.ts';
import { silentLogger } from '../support/logger.ts';

const toStop: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const stop of toStop.splice(0)) await stop();
});
async function serve(
  app: Express,
  options: { tls?: ServerTls; timeouts?: typeof usualTimeouts; maxConnections?: number } = {},
) {
  const listener: HttpListener = await listen(app, { host: '127.0.0.1', port: 0, setting: 'X', ...options });
  toStop.push(() => listener.stop());
  return listener.port;
}
const hello = () =>
  express().use((_request, response) => {
    response.json({ hello: 'world' });
  });

const statusOf = (received: string) => Number(/^HTTP\/1\.1 (\d+)/.exec(received)?.[1]);
const descriptionOf = (received: string) =>
  (JSON.parse(received.slice(received.indexOf('\r\n\r\n'))) as { description: string }).description;

describe('rates', () => {
  it('rate limit: each platform has a bucket of one second that refills over time', async () => {
    let now = 0;
    const app = express();
    app.use((request, response, next) => {
      response.locals['platform'] = { id: request.get('x-platform') };
      next();
    });
    app.use(
      rateLimit(3, () => now),
      hello(),
      errorHandler(silentLogger),
    );
    const ask = async (platform: string) =>
      (await supertest(app).get('/').set('x-platform', platform)).status;
    const three = async (platform: string) => [await ask(platform), await ask(platform), await ask(platform)];
    expect([...(await three('one')), await ask('one')]).toEqual([200, 200, 200, 429]);
    expect(await three('another')).toEqual([200, 200, 200]);
    now += 334;
    expect([await ask('one'), await ask('one')]).toEqual([200, 429]);
    // After an idle hour, the bucket still has only one second's requests.
    now += 3_600_000;
    expect([...(await three('one')), await ask('one')]).toEqual([200, 200, 200, 429]);
  });

  it('rate limit: 429 has Retry-After, and unauthenticated requests do not count', async () => {
    const broker = await makeTestBroker(inject('postgres'), { ratePerSecond: 1 });
    toStop.push(() => broker.stop());
    for (let count = 0; count < 3; count += 1) {
      const answer = await supertest(broker.app).get('/v2/catalog').auth(credentials.username, 'wrong');
      expect(answer.status).toBe(401);
    }
    // A slow process earns further requests, so ask until the limit is reached.
    for (;;) {
      const answer = await broker.ask('put', `${instance('limited')}?accepts_incomplete=true`).send({
        ...provisionBody,
        plan_id: 'none',
      });
      if (answer.status === 400) continue;
      expect(answer.status).toBe(429);
      expect(answer.headers['retry-after']).toBe('1');
      expect((answer.body as { description: string }).description).toContain('BERTH_RATE_PER_SECOND');
      break;
    }
  });
});

describe('size limits', () => {
  it('size limits: too many header bytes, headers or body bytes are refused in JSON', async () => {
    const broker = await makeTestBroker(inject('postgres'));
    toStop.push(() => broker.stop());
    const port = await serve(broker.app);
    const long = await exchange(port, `GET / HTTP/1.1\r\nHost: x\r\nX-Long: ${'x'.repeat(20_000)}\r\n\r\n`);
    expect([statusOf(long), descriptionOf(long)]).toEqual([431, 'The headers are larger than 16 KiB.']);
    const many = 'X-A: 1\r\n'.repeat(101);
    const counted = await exchange(port, `GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${many}\r\n`);
    expect([statusOf(counted), descriptionOf(counted)]).toEqual([
      431,
      'The request has more than 100 headers.',
    ]);
    const large = await broker.ask('put', instance('large')).send({ text: 'x'.repeat(256 * 1024) });
    expect([large.status, large.body]).toEqual([
      413,
      { description: 'The request body is larger than 256 KiB.' },
    ]);
    const deep = await broker
      .ask('put', instance('deep'))
      .type('application/json')
      .send(`{"a":${'['.repeat(100_000)}${']'.repeat(100_000)}}`);
    expect([deep.status, deep.body]).toEqual([
      400,
      { description: 'The request body is nested deeper than 64 levels.' },
    ]);
  });

  it('size limits: invalid HTTP is answered in JSON too', async () => {
    const port = await serve(hello());
    const received = await exchange(port, 'what is this\r\n\r\n');
    expect(statusOf(received)).toBe(400);
    expect(descriptionOf(received)).not.toBe('');
  });
});

describe('slow clients', () => {
  const timeouts = { ...usualTimeouts, headers: 200, request: 400, checkEvery: 50, silence: 1_000 };

  it.each([
    ['send nothing', ''],
    ['send half a header', 'GET / HTTP/1.1\r\nHost: x\r\n'],
    ['send half a body', 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf'],
  ])('slow clients: get 408 if they %s', async (_name, sent) => {
    const app = express().use(express.text({ type: () => true }), hello());
    const received = await exchange(await serve(app, { timeouts }), sent);
    expect(statusOf(received)).toBe(408);
    expect(descriptionOf(received)).toContain('not complete in time');
  });

  it('slow clients: get 408 if they keep sending a header now and then', async () => {
    let timer: NodeJS.Timeout | undefined;
    const received = await exchange(await serve(hello(), { timeouts }), 'GET / HTTP/1.1\r\n', (socket) => {
      timer = setInterval(() => socket.write('X-A: 1\r\n'), 20);
    });
    clearInterval(timer);
    expect(statusOf(received)).toBe(408);
  });

  // Fails if the server answers in text and waits for the client's half of the handshake: it never closes.
  it('slow clients: are disconnected if they do not complete the TLS handshake', async () => {
    const { cert, key } = await certificates();
    const tls = { cert, key, clientCas: undefined };
    const port = await serve(hello(), { tls, timeouts: { ...timeouts, tlsHandshake: 100 } });
    expect(await exchange(port, '')).toBe('');
  });

  it('slow clients: are disconnected if they do not read their answer', async () => {
    let cut: () => void = () => undefined;
    const closed = new Promise<void>((resolve) => (cut = resolve));
    const app = express().use((_request, response) => {
      response.on('close', cut);
      response.end(Buffer.alloc(64 * 1024 * 1024));
    });
    const socket = connect(await serve(app, { timeouts }), '127.0.0.1');
    socket.on('error', () => undefined).pause();
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    await closed;
    socket.destroy();
  });
});

it('security headers: keep answers out of caches and browsers', async () => {
  const broker = await makeTestBroker(inject('postgres'));
  toStop.push(() => broker.stop());
  const answers = [
    await broker.ask('get', instance('unknown')),
    await supertest(broker.app).get('/v2/catalog'),
    await supertest(broker.mgmt).get('/mgmt/health'),
  ];
  for (const { headers } of answers) {
    expect(headers).toMatchObject({
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
      'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
    });
    expect(headers).not.toHaveProperty('strict-transport-security');
    expect(headers).not.toHaveProperty('x-powered-by');
  }
  expect((await broker.ask('get', '/v2/catalog')).headers['cache-control']).toBe('no-cache');
});

describe('TLS', () => {
  const ask = (port: number, options: object) =>
    new Promise<{ status: number | undefined; hsts: unknown }>((resolve, reject) => {
      request({ host: '127.0.0.1', port, agent: false, ...options }, (response) => {
        response.resume();
        resolve({
          status: response.statusCode,
          hsts: response.headers['strict-transport-security'],
        });
      })
        .on('error', reject)
        .end();
    });

  it('TLS: serves with the certificate and sends Strict-Transport-Security', async () => {
    const { authority, cert, key } = await certificates();
    const broker = await makeTestBroker(inject('postgres'));
    toStop.push(() => broker.stop());
    const port = await serve(broker.app, { tls: { cert, key, clientCas: undefined } });
    const answer = await ask(port, { ca: authority.certificatePem });
    expect(answer).toEqual({ status: 401, hsts: 'max-age=31536000' });
  });

  it('TLS: accepts only clients with a certificate of the configured CAs', async () => {
    const { authority, cert, key, client } = await certificates();
    const foreign = (await certificates()).client;
    const port = await serve(hello(), { tls: { cert, key, clientCas: authority.certificatePem } });
    const ca = authority.certificatePem;
    const { status } = await ask(port, { ca, cert: client.certificatePem, key: client.privateKeyPem });
    expect(status).toBe(200);
    await expect(ask(port, { ca })).rejects.toThrow();
    await expect(
      ask(port, { ca, cert: foreign.certificatePem, key: foreign.privateKeyPem }),
    ).rejects.toThrow();
  });
});
