import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { createWorld, type World } from './support/certificates.ts';
import { startHttpEngine } from './support/engine.ts';
import { get, startGateway } from './support/harness.ts';
import { expectRefused, messageOf } from './support/refused.ts';
import { turns, until } from './support/until.ts';

let world: World;

beforeAll(async () => {
  world = await createWorld();
});

describe('an unknown serial', () => {
  it('look-up: admits an app that connects before the notification of its binding arrives', async () => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world);
    const issued = await world.issue();
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
    for (let count = 0; count < 2; count += 1) {
      expect(await harness.connect(issued).ask(get('/_ping'))).toContain('200 OK');
    }
    expect(harness.source.countOf('readBySerial')).toBe(1);
  });

  it('look-up: refuses with 503, not as unbound, if the database takes too long', async () => {
    const harness = await startGateway(world, { limits: { lookUpTimeoutMs: 100 } });
    onTestFinished(harness.source.delay('readBySerial'));
    const expected = { status: 503, reason: 'look-up-failed', message: /could not look your binding up/ };
    await expectRefused(harness, await world.issue(), expected);
  });

  it('look-up: shares one query between clients of one serial, and limits concurrent look-ups', async () => {
    const harness = await startGateway(world, { limits: { maxLookUps: 1 } });
    const release = harness.source.delay('readBySerial');
    const [one, two] = [await world.issue(), await world.issue()];
    const waiting = [harness.connect(one), harness.connect(one)].map((client) => client.ask(get('/')));
    await until('one is being looked up', () => harness.source.countOf('readBySerial') === 1);
    await expectRefused(harness, two, {
      status: 503,
      reason: 'look-up-failed',
      message: /look your binding up/,
    });
    release();
    for (const answer of await Promise.all(waiting)) expect(messageOf(answer)).toMatch(/unbound/);
    expect(harness.source.countOf('readBySerial')).toBe(1);
  });

  it('look-up: batches the serials of many clients that connect at once', async () => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world);
    const crowd = await Promise.all(Array.from({ length: 40 }, () => world.issue()));
    for (const [index, { serial, expiresAt }] of crowd.entries()) {
      const bindingId = `binding-${index}`;
      harness.source.live.set(bindingId, {
        ...{
          bindingId,
          serial,
          expiresAt,
          hostId: 'h',
          tenantId: 't1',
          engine: engine.address,
          asleep: false,
        },
      });
    }
    const release = harness.source.delay('readBySerial');
    const clients = crowd.map((issued) => harness.connect(issued));
    const answers = clients.map((client) => client.ask(get('/_ping')));
    await until('all have sent their certificate', () =>
      clients.every((client) => client.resumed() !== undefined),
    );
    // Handshakes are completed one for each turn of the event loop.
    await turns(2 * crowd.length);
    release();
    for (const answer of await Promise.all(answers)) expect(answer).toContain('200 OK');
    expect(harness.source.countOf('readBySerial')).toBeLessThan(10);
  });

  it('look-up: refuses at once if the connection to the database is lost during it', async () => {
    const harness = await startGateway(world);
    const release = harness.source.delay('readBySerial');
    onTestFinished(release);
    const client = harness.connect(await world.issue());
    await until('it is being looked up', () => harness.source.countOf('readBySerial') === 1);
    harness.source.lose();
    release();
    expect(await client.ask(get('/_ping'))).toMatch(/^HTTP\/1\.1 503/);
  });

  it('look-up: leaves no connection behind if the client closes during it', async () => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world);
    const release = harness.source.delay('readBySerial');
    const issued = await world.issue();
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
    await until('it is being looked up', () => harness.source.countOf('readBySerial') === 1);
    client.socket.destroy();
    await turns();
    release();
    await until('no connection is left', () => {
      const { unauthenticated, connections } = harness.gateway.state();
      return unauthenticated + connections + engine.open() === 0;
    });
  });
});
