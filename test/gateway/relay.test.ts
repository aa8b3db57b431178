import { randomBytes } from 'node:crypto';
import { Duplex } from 'node:stream';
import { beforeAll, describe, expect, it } from 'vitest';
import { relay } from '../../src/gateway/relay.ts';
import { createWorld, type World } from './support/certificates.ts';
import { createStandIn, startHttpEngine, untilTestEnds } from './support/engine.ts';
import { attach, get, openStream, startGateway } from './support/harness.ts';
import { turns, until } from './support/until.ts';

let world: World;

beforeAll(async () => {
  world = await createWorld();
});

const MiB = 1024 * 1024;

describe('a live binding', () => {
  it('proxy: connects a binding to the engine of its host, and to no other', async () => {
    const [mine, theirs] = [await startHttpEngine(), await startHttpEngine()];
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

  it('proxy: connects a binding to its host only, whatever server name or path it sends', async () => {
    // Fails if a server name that equals the id of a host or binding selects that host.
    const [mine, theirs] = [await startHttpEngine(), await startHttpEngine()];
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

  it('proxy: serves several requests over one connection', async () => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world);
    const client = harness.connect(await harness.bind(engine.address));
    const request = get('/_ping').replace('close', 'keep-alive');
    for (let count = 1; count <= 3; count += 1) {
      client.socket.write(request);
      await until(`answer ${count}`, () => client.received().split('\r\n\r\nOK').length === count + 1);
    }
    expect(engine.connections()).toBe(1);
  });

  it('proxy: closes and forgets both sides when the client closes', async () => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    const clients = Array.from({ length: 5 }, () => harness.connect(bound));
    await until('all are open', () => harness.gateway.state().connections === 5 && engine.open() === 5);
    for (const { socket } of clients) socket.destroy();
    await until('all are closed', () => harness.gateway.state().connections === 0 && engine.open() === 0);
    expect(harness.gateway.state().unauthenticated).toBe(0);
  });
});

describe('ends', () => {
  it("relay: passes the end of the client's input on and still relays the output (docker run -i)", async () => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world);
    const client = await openStream(harness, await harness.bind(engine.address));
    client.socket.end('some input');
    expect(await client.ended).toMatch(/\r\n\r\nsome input\nthat was all$/);
    await until(
      'no connection is left',
      () => harness.gateway.state().connections === 0 && engine.open() === 0,
    );
  });

  it('relay: passes on an end of input that arrived before the engine was connected', async () => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world);
    const issued = await world.issue();
    const release = harness.source.delay('readBySerial');
    harness.source.live.set('b1', {
      ...{
        bindingId: 'b1',
        serial: issued.serial,
        hostId: 'h1',
        tenantId: 't1',
        expiresAt: issued.expiresAt,
        asleep: false,
      },
      engine: engine.address,
    });
    const client = harness.connect(issued);
    client.socket.end(`${attach}early`);
    await until('it is being looked up', () => harness.source.countOf('readBySerial') === 1);
    await turns();
    release();
    expect(await client.ended).toMatch(/\r\n\r\nearly\nthat was all$/);
    await until(
      'no connection is left',
      () => harness.gateway.state().connections === 0 && engine.open() === 0,
    );
  });

  it("relay: passes the end of the engine's output on and still relays the client's input", async () => {
    let input = '';
    let inputEnded = false;
    const engine = await untilTestEnds(
      createStandIn((socket) => {
        socket.end('the whole output');
        socket.on('data', (chunk: Buffer) => (input += chunk.toString()));
        socket.on('end', () => (inputEnded = true));
      }),
    );
    const harness = await startGateway(world);
    const client = harness.connect(await harness.bind(engine.address));
    expect(await client.ended).toBe('the whole output');
    client.socket.write('one,');
    await until('the engine has received it', () => input === 'one,');
    client.socket.end('two');
    await until('the engine has received the end', () => inputEnded);
    expect(input).toBe('one,two');
    await until(
      'no connection is left',
      () => harness.gateway.state().connections === 0 && engine.open() === 0,
    );
  });

  it('relay: delivers all data before the end to a slow reader', async () => {
    const content = randomBytes(8 * MiB);
    const engine = await untilTestEnds(
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

  it('relay: lets a slow side read buffered data after the other side has closed', async () => {
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
    relay(client, engine, {
      ...{ bufferLimit: 65_536, mayPass: () => true },
      ...{ onPassed: () => undefined, onBuffered: () => undefined, endEngine: () => void engine.end() },
    });
    client.push(null);
    engine.push('the last word');
    engine.push(null);
    await until('the engine has closed', () => engine.closed);
    expect(client.destroyed).toBe(false);
    takeOne();
    await until('the client has closed', () => client.closed);
    expect(taken).toEqual(['the last word']);
  });

  it('relay: closes the engine side if the client disconnects', async () => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world);
    const client = await openStream(harness, await harness.bind(engine.address));
    client.socket.destroy();
    await until(
      'no connection is left',
      () => harness.gateway.state().connections === 0 && engine.open() === 0,
    );
  });

  it('relay: closes the client side if the engine resets the connection', async () => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world);
    const client = await openStream(harness, await harness.bind(engine.address));
    for (const socket of engine.sockets()) socket.resetAndDestroy();
    await client.ended;
    await until('no connection is left', () => harness.gateway.state().connections === 0);
  });
});
