import { spawn } from 'node:child_process';
import net from 'node:net';
import { beforeAll, expect, it, onTestFinished } from 'vitest';
import { createWorld, type World } from './support/certificates.ts';
import { startCrowd } from './support/crowd.ts';
import { createStandIn, startHttpEngine } from './support/engine.ts';
import { get, startGateway } from './support/harness.ts';
import { until } from './support/until.ts';

let world: World;

beforeAll(async () => {
  world = await createWorld();
});

/** A client that doesn't speak TLS, from the given address in 127.0.0.0/8. */
function plainClient(port: number, localAddress = '127.0.0.1'): net.Socket {
  const socket = net.connect({ host: '127.0.0.1', port, localAddress, allowHalfOpen: true });
  socket.on('error', () => undefined);
  socket.resume();
  onTestFinished(() => {
    socket.destroy();
  });
  return socket;
}

it('limits: drops a client that sends nothing sooner than one that has begun its handshake', async () => {
  const harness = await startGateway(world, { limits: { firstBytesTimeoutMs: 300 } });
  const socket = plainClient(harness.port);
  await until('it is connected', () => harness.gateway.state().unauthenticated === 1);
  await until('it is dropped', () => harness.gateway.state().unauthenticated === 0);
  await until('it notices', () => socket.readableEnded || socket.destroyed);
  expect(harness.gateway.state().counters.dropped).toMatchObject({ silent: 1, 'too-slow': 0 });
});

it('limits: drops a client that sends its handshake byte by byte after the same timeout', async () => {
  const harness = await startGateway(world, { limits: { handshakeTimeoutMs: 500 } });
  const socket = plainClient(harness.port);
  // The header of a TLS record (RFC 8446, 5.1) that announces 4 KiB of handshake.
  const hello = Buffer.concat([
    Buffer.from('1603011000', 'hex'),
    Buffer.from('010009fc0303', 'hex'),
    Buffer.alloc(4096),
  ]);
  let sent = 0;
  const drip = setInterval(() => socket.write(hello.subarray(sent, (sent += 1))), 20);
  onTestFinished(() => {
    clearInterval(drip);
  });
  await until('it is connected', () => harness.gateway.state().unauthenticated === 1);
  await until('it is dropped', () => harness.gateway.state().unauthenticated === 0);
  expect(harness.gateway.state().counters.dropped['too-slow']).toBe(1);
  expect(sent).toBeGreaterThan(5);
  expect(sent).toBeLessThan(hello.length);
});

it('limits: one address cannot use up all unauthenticated connections, and others still connect', async () => {
  const harness = await startGateway(world, { limits: { maxUnauthenticatedPerAddress: 3 } });
  for (let count = 0; count < 5; count += 1) plainClient(harness.port, '127.0.0.2');
  const { dropped } = harness.gateway.state().counters;
  await until('two were dropped', () => dropped['address-full'] === 2);
  expect(harness.gateway.state().unauthenticated).toBe(3);
  const engine = await startHttpEngine();
  const answer = await harness.connect(await harness.bind(engine.address)).ask(get('/_ping'));
  expect(answer).toContain('200 OK');
});

it('limits: an address can connect again once its unauthenticated connections are closed', async () => {
  const harness = await startGateway(world, { limits: { maxUnauthenticatedPerAddress: 2 } });
  for (let round = 1; round <= 3; round += 1) {
    const sockets = [plainClient(harness.port), plainClient(harness.port)];
    await until('two are connected', () => harness.gateway.state().unauthenticated === 2);
    for (const socket of sockets) socket.destroy();
    await until('they are closed', () => harness.gateway.state().unauthenticated === 0);
  }
  expect(harness.gateway.state().counters.dropped['address-full']).toBe(0);
});

it('limits: evicts the oldest unauthenticated connection at the limit', async () => {
  const harness = await startGateway(world, { limits: { maxUnauthenticated: 3 } });
  const sockets: net.Socket[] = [];
  for (let count = 1; count <= 3; count += 1) {
    sockets.push(plainClient(harness.port));
    await until(`${count} are connected`, () => harness.gateway.state().unauthenticated === count);
  }
  const engine = await startHttpEngine();
  const answer = await harness.connect(await harness.bind(engine.address)).ask(get('/_ping'));
  expect(answer).toContain('200 OK');
  await until('the oldest is closed', () => sockets[0]?.readableEnded === true);
  expect(harness.gateway.state().counters.dropped['room-needed']).toBe(1);
  expect(sockets.slice(1).map(({ readableEnded }) => readableEnded)).toEqual([false, false]);
});

it('limits: admitted connections neither count as unauthenticated nor are evicted', async () => {
  const engine = await startHttpEngine();
  const limits = { maxUnauthenticated: 2, maxUnauthenticatedPerAddress: 2, firstBytesTimeoutMs: 1_000 };
  const harness = await startGateway(world, { limits });
  const bound = await harness.bind(engine.address);
  for (let count = 1; count <= 6; count += 1) {
    harness.connect(bound);
    await until(`${count} are open`, () => harness.gateway.state().connections === count);
  }
  const late = plainClient(harness.port);
  await until('the unauthenticated connection was dropped', () => late.readableEnded);
  expect(harness.gateway.state()).toMatchObject({ connections: 6, unauthenticated: 0 });
  expect(harness.gateway.state().counters.dropped).toMatchObject({
    'room-needed': 0,
    'address-full': 0,
    silent: 1,
  });
});

it('proxy: refuses with 502 if the engine never accepts the connection', async () => {
  const deaf = await startDeafListener();
  const harness = await startGateway(world, { limits: { connectTimeoutMs: 300 } });
  const bound = await harness.bind({ host: '127.0.0.1', port: deaf });
  expect(await harness.connect(bound).ask(get('/_ping'))).toMatch(/^HTTP\/1\.1 502/);
  await until('no connection is left', () => harness.gateway.state().connections === 0);
  expect(harness.lines.join('\n')).toContain('no connection within 300 ms');
});

/** A port whose process hangs and whose accept queue is full: further connections stay pending. */
async function startDeafListener(): Promise<number> {
  const program = `
    const server = require('node:net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
      require('node:fs').writeSync(1, server.address().port + '\\n');
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    });`;
  const child = spawn(process.execPath, ['-e', program], { env: {}, stdio: ['ignore', 'pipe', 'inherit'] });
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  const port = await new Promise<number>((resolve) => {
    child.stdout.once('data', (line: Buffer) => {
      resolve(Number(line.toString()));
    });
  });
  const fillers = Array.from({ length: 8 }, () => plainClient(port));
  const queued = () => fillers.filter(({ connecting }) => !connecting).length;
  // listen(2): Linux queues one more than the backlog.
  await until('its queue is full', () => queued() === 2);
  return port;
}

it('limits: 2,000 idle, stalled, silent and invalid clients cost bounded memory, and others are served', async () => {
  const engine = await createStandIn((socket) => {
    const block = Buffer.alloc(262_144);
    const pour = () => {
      while (!socket.destroyed && socket.write(block));
    };
    socket.on('data', (request: Buffer) => {
      if (request.toString().startsWith('GET /_ping')) {
        socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK');
        return;
      }
      socket.on('drain', pour);
      pour();
    });
    socket.on('end', () => socket.end());
  });
  onTestFinished(() => engine.close());
  const limits = {
    maxConnectionsPerBinding: 2_000,
    maxUnauthenticatedPerAddress: 400,
    firstBytesTimeoutMs: 60_000,
  };
  const harness = await startGateway(world, { limits });
  const bound = await harness.bind(engine.address);
  const other = await harness.bind(engine.address);
  expect(await harness.connect(other).ask(get('/_ping'))).toContain('200 OK');
  await until('no connection is left', () => harness.gateway.state().connections === 0);
  const before = process.memoryUsage.rss();
  const { leave } = await startCrowd({
    ...{ port: harness.port, ca: world.serverCa.certificatePem, certificate: bound },
    ...{ idle: 500, stalled: 50, silent: 600, garbage: 850 },
  });
  const state = () => harness.gateway.state();
  await until(
    'the crowd is connected',
    () => state().connections === 550 && state().unauthenticated === 400,
    30_000,
  );
  const fromElsewhere = harness.connect(other, { localAddress: '127.0.0.3' });
  expect(await fromElsewhere.ask(get('/_ping'))).toContain('200 OK');
  const { counters } = state();
  expect(counters.dropped['too-much']).toBe(850);
  expect(counters.dropped['address-full']).toBe(200);
  // 50 clients that read nothing of an endless answer, 500 idle ones, 400 silent ones; the substitute engine in
  // this process counts too. An unbounded buffer would grow to hundreds of MiB in this time.
  const mib = (process.memoryUsage.rss() - before) / 1024 / 1024;
  expect(mib).toBeLessThan(256);
  leave();
  await until('all are closed', () => state().connections + state().unauthenticated === 0);
  await until('all connections to the engine are closed', () => engine.open() === 0);
}, 60_000);
