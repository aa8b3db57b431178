import { createHash, randomBytes } from 'node:crypto';
import { beforeAll, describe, expect, it } from 'vitest';
import { createWorld, type World } from './support/certificates.ts';
import { createStandIn, untilTestEnds } from './support/engine.ts';
import { startGateway } from './support/harness.ts';
import { until } from './support/until.ts';

let world: World;

beforeAll(async () => {
  world = await createWorld();
});

const MiB = 1024 * 1024;

describe('content', () => {
  it('relay: transfers 64 MiB intact in both directions at once', async () => {
    const block = randomBytes(MiB);
    const blocks = 64;
    const expected = createHash('sha256');
    for (let count = 0; count < blocks; count += 1) expected.update(block);
    const digest = expected.digest('hex');
    const atEngine = createHash('sha256');
    let engineReceived = 0;
    const engine = await untilTestEnds(
      createStandIn((socket) => {
        socket.on('data', (chunk: Buffer) => {
          atEngine.update(chunk);
          engineReceived += chunk.length;
        });
        let sent = 0;
        const send = () => {
          while (sent < blocks) {
            sent += 1;
            if (!socket.write(block)) return;
          }
          socket.end();
        };
        socket.on('drain', send);
        send();
      }),
    );
    const harness = await startGateway(world);
    const client = harness.connect(await harness.bind(engine.address));
    client.socket.removeAllListeners('data');
    const atClient = createHash('sha256');
    let clientReceived = 0;
    client.socket.on('data', (chunk: Buffer) => {
      atClient.update(chunk);
      clientReceived += chunk.length;
    });
    for (let count = 0; count < blocks; count += 1) client.socket.write(block);
    client.socket.end();
    await until(
      'both transfers are complete',
      () => clientReceived + engineReceived >= 2 * blocks * MiB && client.over(),
      25_000,
    );
    expect(atEngine.digest('hex')).toBe(digest);
    expect(atClient.digest('hex')).toBe(digest);
  });

  it('relay: applies back-pressure to the sender if the receiver reads nothing', async () => {
    // Kernel buffers between sender and receiver take a few MiB; the gateway adds two small ones.
    const bound = 24 * MiB;
    const block = Buffer.alloc(MiB);
    let engineCouldSend = 0;
    const engine = await untilTestEnds(
      createStandIn((socket) => {
        socket.pause();
        const send = () => {
          while (engineCouldSend < 256 * MiB) {
            engineCouldSend += block.length;
            if (!socket.write(block)) return;
          }
        };
        socket.on('drain', send);
        send();
      }),
    );
    const harness = await startGateway(world);
    const client = harness.connect(await harness.bind(engine.address));
    let clientCouldSend = 0;
    client.socket.pause();
    const send = () => {
      while (clientCouldSend < 256 * MiB) {
        clientCouldSend += block.length;
        if (!client.socket.write(block)) return;
      }
    };
    client.socket.on('drain', send);
    send();
    // Stalled: no progress within 300 ms.
    let before = -1;
    const relayed = () => {
      const { bytesToClients, bytesToEngines } = harness.gateway.state().counters;
      return bytesToClients + bytesToEngines;
    };
    while (relayed() !== before || before === 0) {
      before = relayed();
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
    expect(engineCouldSend).toBeLessThan(bound);
    expect(clientCouldSend).toBeLessThan(bound);
    expect(before).toBeGreaterThan(0);
  });
});
