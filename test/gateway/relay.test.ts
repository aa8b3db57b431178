import { createHash, randomBytes } from 'node:crypto';
import { Duplex } from 'node:stream';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { relay } from '../../src/gateway/relay.ts';
import { createWorld, type World } from './support/certificates.ts';
import { createHttpEngine, createStandIn, type StandIn } from './support/engine.ts';
import { attach, get, startGateway } from './support/harness.ts';
import { turns, until } from './support/until.ts';

let world: World;

beforeAll(async () => {
  world = await createWorld();
});

async function during<T extends StandIn>(engine: Promise<T>): Promise<T> {
  const made = await engine;
  onTestFinished(() => made.close());
  return made;
}

const MiB = 1024 * 1024;

describe('a live binding', () => {
  it('reaches the engine of its own host, and no other', async () => {
    const [mine, theirs] = [await during(createHttpEngine()), await during(createHttpEngine())];
    const harness = await startGateway(world);
    const bound = await harness.bind(mine.address);
    await harness.bind(theirs.address);
    const client = harness.connect(bound);
    const answer = await client.ask(get('/_ping'));
    expect(answer).toContain('Server: Docker/stand-in');
    expect(answer).toMatch(/OK$/);
    expect(mine.connections()).toBe(1);
    expect(theirs.connections()).toBe(0);
    expect(harness.gateway.state().counters).toMatchObject({
      admitted: 1,
      bytesToEngines: get('/_ping').length,
    });
  });

  it('reaches no other whatever server name or path it asks for', async () => {
    // Seen to fail where a server name that is the id of a host or of a binding leads there.
    const [mine, theirs] = [await during(createHttpEngine()), await during(createHttpEngine())];
    const harness = await startGateway(world);
    const bound = await harness.bind(mine.address);
    const other = (await harness.bind(theirs.address)).binding;
    const { host, port } = theirs.address;
    const names = ['localhost', other.hostId, other.bindingId, `${other.hostId}.localhost`];
    const paths = [
      '/_ping',
      `/${other.hostId}/_ping`,
      `/../${other.bindingId}`,
      `http://${host}:${port}/_ping`,
    ];
    for (const servername of names) {
      for (const path of paths) {
        const client = harness.connect(bound, { servername, checkServerIdentity: () => undefined });
        await client.ask(get(path));
      }
    }
    expect(mine.connections()).toBe(names.length * paths.length);
    expect(theirs.connections()).toBe(0);
  });

  it('lets many requests go over one connection', async () => {
    const engine = await during(createHttpEngine());
    const harness = await startGateway(world);
    const client = harness.connect(await harness.bind(engine.address));
    const request = get('/_ping').replace('close', 'keep-alive');
    for (let count = 1; count <= 3; count += 1) {
      client.socket.write(request);
      await until(`answer ${count}`, () => client.received().split('\r\n\r\nOK').length === count + 1);
    }
    expect(engine.connections()).toBe(1);
  });

  it('is forgotten when it closes, on both sides', async () => {
    const engine = await during(createHttpEngine());
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    const clients = Array.from({ length: 5 }, () => harness.connect(bound));
    await until('all are open', () => harness.gateway.state().connections === 5 && engine.open() === 5);
    for (const { socket } of clients) socket.destroy();
    await until('all are gone', () => harness.gateway.state().connections === 0 && engine.open() === 0);
    expect(harness.gateway.state().unauthenticated).toBe(0);
  });
});

describe('ends', () => {
  it("pass from the client's input to the engine, and the output still comes (docker run -i)", async () => {
    const engine = await during(createHttpEngine());
    const harness = await startGateway(world);
    const client = harness.connect(await harness.bind(engine.address));
    client.socket.write(attach);
    await until('the connection is taken over', () => client.received().includes('UPGRADED'));
    client.socket.end('some input');
    expect(await client.ended).toMatch(/\r\n\r\nsome input\nthat was all$/);
    await until('nothing is left', () => harness.gateway.state().connections === 0 && engine.open() === 0);
  });

  it('that come before the engine was reached are passed on as well', async () => {
    const engine = await during(createHttpEngine());
    const harness = await startGateway(world);
    const issued = await world.issue();
    const release = harness.source.hold('readBySerial');
    harness.source.live.set('b1', {
      ...{ bindingId: 'b1', serial: issued.serial, hostId: 'h1', expiresAt: issued.expiresAt, asleep: false },
      engine: engine.address,
    });
    const client = harness.connect(issued);
    client.socket.end(`${attach}early`);
    await until('it is being looked up', () => harness.source.countOf('readBySerial') === 1);
    await turns();
    release();
    expect(await client.ended).toMatch(/\r\n\r\nearly\nthat was all$/);
    await until('nothing is left', () => harness.gateway.state().connections === 0 && engine.open() === 0);
  });

  it('pass from the engine to the client, whose input still goes on', async () => {
    let input = '';
    let inputEnded = false;
    const engine = await during(
      createStandIn((socket) => {
        socket.end('all that I have to say');
        socket.on('data', (chunk: Buffer) => (input += chunk.toString()));
        socket.on('end', () => (inputEnded = true));
      }),
    );
    const harness = await startGateway(world);
    const client = harness.connect(await harness.bind(engine.address));
    expect(await client.ended).toBe('all that I have to say');
    client.socket.write('one,');
    await until('the engine has heard it', () => input === 'one,');
    client.socket.end('two');
    await until('the engine has heard the end', () => inputEnded);
    expect(input).toBe('one,two');
    await until('nothing is left', () => harness.gateway.state().connections === 0 && engine.open() === 0);
  });

  it('come after everything that was sent before, however slowly it is taken', async () => {
    const content = randomBytes(8 * MiB);
    const engine = await during(
      createStandIn((socket) => {
        socket.resume();
        socket.end(content);
      }),
    );
    const harness = await startGateway(world);
    const client = harness.connect(await harness.bind(engine.address));
    const passed = () => harness.gateway.state().counters.bytesToClients;
    client.socket.once('secureConnect', () => {
      client.socket.pause();
      client.socket.end();
    });
    await until('the engine has sent what it can', () => passed() > 0 && client.socket.isPaused());
    await turns();
    expect(passed()).toBeLessThan(content.length);
    client.socket.resume();
    expect(await client.ended).toBe(content.toString());
  });

  it('leave the other side its time to take what is left, also when one has closed already', async () => {
    const taken: string[] = [];
    let takeOne: () => void = () => undefined;
    const client = new Duplex({
      read: () => undefined,
      write: (chunk: Buffer, _, done) => {
        takeOne = () => {
          taken.push(chunk.toString());
          done();
        };
      },
    });
    const engine = new Duplex({
      read: () => undefined,
      write: (_chunk, _, done) => {
        done();
      },
    });
    relay(
      client,
      engine,
      () => true,
      () => undefined,
    );
    client.push(null);
    engine.push('the last word');
    engine.push(null);
    await until('the engine has closed', () => engine.closed);
    expect(client.destroyed).toBe(false);
    takeOne();
    await until('the client has closed', () => client.closed);
    expect(taken).toEqual(['the last word']);
  });

  it('in the middle take the other side along: the client', async () => {
    const engine = await during(createHttpEngine());
    const harness = await startGateway(world);
    const client = harness.connect(await harness.bind(engine.address));
    client.socket.write(attach);
    await until('the connection is taken over', () => client.received().includes('UPGRADED'));
    client.socket.destroy();
    await until('nothing is left', () => harness.gateway.state().connections === 0 && engine.open() === 0);
  });

  it('in the middle take the other side along: the engine', async () => {
    const engine = await during(createHttpEngine());
    const harness = await startGateway(world);
    const client = harness.connect(await harness.bind(engine.address));
    client.socket.write(attach);
    await until('the connection is taken over', () => client.received().includes('UPGRADED'));
    for (const socket of engine.sockets()) socket.resetAndDestroy();
    await client.ended;
    await until('nothing is left', () => harness.gateway.state().connections === 0);
  });
});

describe('content', () => {
  it('of 64 MiB arrives whole in both directions at once', async () => {
    const block = randomBytes(MiB);
    const blocks = 64;
    const expected = createHash('sha256');
    for (let count = 0; count < blocks; count += 1) expected.update(block);
    const digest = expected.digest('hex');
    const atEngine = createHash('sha256');
    let engineHeard = 0;
    const engine = await during(
      createStandIn((socket) => {
        socket.on('data', (chunk: Buffer) => {
          atEngine.update(chunk);
          engineHeard += chunk.length;
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
    let clientHeard = 0;
    client.socket.on('data', (chunk: Buffer) => {
      atClient.update(chunk);
      clientHeard += chunk.length;
    });
    for (let count = 0; count < blocks; count += 1) client.socket.write(block);
    client.socket.end();
    await until(
      'both are through',
      () => clientHeard + engineHeard >= 2 * blocks * MiB && client.over(),
      25_000,
    );
    expect(atEngine.digest('hex')).toBe(digest);
    expect(atClient.digest('hex')).toBe(digest);
  });

  it('that nobody takes waits with its sender, not in the gateway', async () => {
    // Kernel buffers between sender and receiver hold a few MiB; the gateway adds two small ones.
    const bound = 24 * MiB;
    const block = Buffer.alloc(MiB);
    let engineCouldSend = 0;
    const engine = await during(
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
    // Stalled: nothing more goes through in a good while.
    let before = -1;
    const through = () => {
      const { bytesToClients, bytesToEngines } = harness.gateway.state().counters;
      return bytesToClients + bytesToEngines;
    };
    while (through() !== before || before === 0) {
      before = through();
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
    expect(engineCouldSend).toBeLessThan(bound);
    expect(clientCouldSend).toBeLessThan(bound);
    expect(before).toBeGreaterThan(0);
  });
});
