import net from 'node:net';
import type tls from 'node:tls';
import { beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import type { IssuedCertificate } from '../../src/core/ports/certificate-issuer.ts';
import { createCertificateAuthority } from '../../src/certificates/ca.ts';
import { issueClientCertificate } from '../../src/certificates/client-certificate.ts';
import { createServerRequest, signServerRequest } from '../../src/certificates/server-certificate.ts';
import { createWorld, gatewayTls, inDays, type World } from './support/certificates.ts';
import { createHttpEngine, deadAddress, type StandIn } from './support/engine.ts';
import { attach, get, type Harness, startGateway } from './support/harness.ts';
import { turns, until } from './support/until.ts';

let world: World;

beforeAll(async () => {
  world = await createWorld();
});

async function httpEngine(): Promise<StandIn> {
  const engine = await createHttpEngine();
  onTestFinished(() => engine.close());
  return engine;
}

/** What docker would print. */
const messageOf = (answer: string) =>
  (JSON.parse(answer.slice(answer.indexOf('\r\n\r\n'))) as { message: string }).message;

async function expectRefused(
  harness: Harness,
  certificate: Parameters<Harness['connect']>[0],
  expected: { status: number; reason: string; message: RegExp },
): Promise<void> {
  const answer = await harness.connect(certificate).ask(get('/_ping'));
  expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${expected.status} `));
  expect(answer).toContain('\r\nServer: Berth\r\n');
  expect(messageOf(answer)).toMatch(expected.message);
  expect(harness.gateway.state().counters.refused).toMatchObject({ [expected.reason]: 1 });
}

describe('refused, with a message and without a byte to any engine, is', () => {
  it('a client without a certificate', async () => {
    const harness = await startGateway(world);
    await expectRefused(harness, undefined, { status: 403, reason: 'untrusted', message: /needs a binding/ });
  });

  it('a certificate of another authority, also with the serial of a live binding', async () => {
    const engine = await httpEngine();
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    const foreign = await createCertificateAuthority({ commonName: 'clients', validForDays: 1 });
    const forged = await issueClientCertificate(foreign, {
      ...{ commonName: 'binding', serial: bound.serial, notAfter: new Date(Date.now() + 3_600_000) },
    });
    await expectRefused(harness, forged, { status: 403, reason: 'untrusted', message: /needs a binding/ });
    expect(engine.connections()).toBe(0);
  });

  it("the authority's own server certificate", async () => {
    const harness = await startGateway(world);
    const { requestPem, privateKeyPem } = await createServerRequest('x');
    const grant = { hosts: ['localhost'], notAfter: inDays(1) };
    const certificatePem = await signServerRequest(world.clientAuthority, requestPem, grant);
    await expectRefused(
      harness,
      { certificatePem, privateKeyPem },
      {
        ...{ status: 403, reason: 'untrusted', message: /needs a binding/ },
      },
    );
  });

  it('a certificate that has expired, also where its binding is live', async () => {
    const engine = await httpEngine();
    vi.useFakeTimers({ toFake: ['Date'], now: inDays(-3) });
    onTestFinished(() => {
      vi.useRealTimers();
    });
    const authority = await createCertificateAuthority({ commonName: 'clients', validForDays: 10 });
    const old = await issueClientCertificate(authority, { commonName: 'binding', notAfter: inDays(1) });
    vi.useRealTimers();
    const harness = await startGateway({
      ...world,
      tls: { ...world.tls, clientCas: [authority.certificatePem] },
    });
    await harness.bind(engine.address, { serial: old.serial });
    await expectRefused(harness, old, { status: 403, reason: 'expired', message: /has expired/ });
    expect(engine.connections()).toBe(0);
  });

  it('a binding that has expired, though its certificate has not', async () => {
    const engine = await httpEngine();
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address, { expiresAt: new Date(Date.now() - 1) });
    await expectRefused(harness, bound, { status: 403, reason: 'expired', message: /has expired/ });
    expect(engine.connections()).toBe(0);
  });

  it('a certificate whose binding is not live', async () => {
    const engine = await httpEngine();
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    harness.source.revoke(bound.binding.bindingId);
    await until('it is acknowledged', () => harness.source.acknowledged.length === 1);
    await expectRefused(harness, bound, { status: 403, reason: 'unknown', message: /unbound/ });
    expect(engine.connections()).toBe(0);
  });

  it('a binding whose host has no address', async () => {
    const harness = await startGateway(world);
    const bound = await harness.bind(undefined);
    await expectRefused(harness, bound, { status: 503, reason: 'host-away', message: /restarted/ });
  });

  it('a binding whose engine takes no connection, as often as it is tried', async () => {
    const harness = await startGateway(world);
    const bound = await harness.bind(await deadAddress());
    const expected = { status: 502, reason: 'engine-unreachable', message: /engine does not answer/ };
    await expectRefused(harness, bound, expected);
    await until('nothing is left', () => harness.gateway.state().connections === 0);
    expect(harness.lines.join('\n')).toContain('ECONNREFUSED');
    const { host, port } = bound.binding.engine ?? {};
    const answer = await harness.connect(bound).ask(get('/_ping'));
    expect(answer).toMatch(/^HTTP\/1\.1 502/);
    // Where hosts are is nobody's business.
    expect(answer).not.toContain(`${host ?? ''}:`);
    expect(answer).not.toContain(String(port));
  });

  it('a binding that has too many connections open already', async () => {
    const engine = await httpEngine();
    const harness = await startGateway(world, { limits: { maxConnectionsPerBinding: 2 } });
    const [bound, other] = [await harness.bind(engine.address), await harness.bind(engine.address)];
    const first = harness.connect(bound);
    harness.connect(bound);
    await until('two are open', () => harness.gateway.state().connections === 2);
    await expectRefused(harness, bound, { status: 503, reason: 'too-many', message: /too many connections/ });
    expect(await harness.connect(other).ask(get('/_ping'))).toContain('200 OK');
    first.socket.destroy();
    await until('one has gone', () => harness.gateway.state().connections === 1);
    expect(await harness.connect(bound).ask(get('/_ping'))).toContain('200 OK');
  });
});

describe('a refused client', () => {
  it('gets a head without a body for HEAD, as docker first asks', async () => {
    const harness = await startGateway(world);
    const answer = await harness.connect(await harness.bind(undefined)).ask(get('/_ping', 'HEAD'));
    expect(answer).toMatch(/^HTTP\/1\.1 503 .*\r\n\r\n$/s);
    expect(answer).toMatch(/Content-Length: [1-9]/);
  });

  it('gets its answer also when it has a lot to send', async () => {
    const harness = await startGateway(world);
    const client = harness.connect(await harness.bind(undefined));
    client.socket.write(get('/images/load', 'POST'));
    const content = Buffer.alloc(4 * 1024 * 1024);
    client.socket.write(content);
    expect(await client.ended).toMatch(/^HTTP\/1\.1 503 .*restarted/s);
  });

  it('gets no answer before it has asked, and does not stay for ever', async () => {
    const harness = await startGateway(world, { limits: { handshakeTimeoutMs: 300 } });
    const away = harness.connect(await harness.bind(undefined));
    const unreachable = harness.connect(await harness.bind(await deadAddress()));
    expect(await Promise.all([away.ended, unreachable.ended])).toEqual(['', '']);
    await until('both are gone', () => {
      const { unauthenticated: strangers, connections } = harness.gateway.state();
      return strangers + connections === 0;
    });
  });

  it('that had ended before it was refused does not stay', async () => {
    const harness = await startGateway(world);
    const release = harness.source.hold('readBySerial');
    const client = harness.connect(await world.issue());
    await until('it is being looked up', () => harness.source.countOf('readBySerial') === 1);
    client.socket.end();
    await turns();
    release();
    // Well before the time limit of strangers, which is 10 s.
    await until('it is gone', () => harness.gateway.state().unauthenticated === 0, 5_000);
    expect(harness.gateway.state().counters.refused.unknown).toBe(1);
  });

  it('that never takes its answer, and sends without end, does not stay for ever either', async () => {
    const harness = await startGateway(world, { limits: { handshakeTimeoutMs: 300 } });
    for (const bound of [await harness.bind(undefined), await harness.bind(await deadAddress())]) {
      const { socket } = harness.connect(bound);
      const block = Buffer.alloc(65_536);
      const flood = () => {
        while (!socket.destroyed && socket.write(block));
      };
      socket.once('secureConnect', () => {
        socket.pause();
        socket.write(get('/_ping', 'POST'));
        flood();
      });
      socket.on('drain', flood);
      await until('it is gone', () => socket.destroyed);
    }
    expect(harness.gateway.state()).toMatchObject({ strangers: 0, connections: 0 });
  });
});

describe('an unknown serial', () => {
  it('is looked up, for an app that is faster than the news of its binding', async () => {
    const engine = await httpEngine();
    const harness = await startGateway(world);
    const issued = await world.issue();
    harness.source.live.set('b1', {
      ...{ bindingId: 'b1', serial: issued.serial, hostId: 'h1', expiresAt: issued.expiresAt, asleep: false },
      engine: engine.address,
    });
    for (let count = 0; count < 2; count += 1) {
      expect(await harness.connect(issued).ask(get('/_ping'))).toContain('200 OK');
    }
    expect(harness.source.countOf('readBySerial')).toBe(1);
  });

  it('is refused as not known, and not as unbound, where the database takes too long', async () => {
    const harness = await startGateway(world, { limits: { lookUpTimeoutMs: 100 } });
    onTestFinished(harness.source.hold('readBySerial'));
    const expected = { status: 503, reason: 'look-up-failed', message: /could not look your binding up/ };
    await expectRefused(harness, await world.issue(), expected);
  });

  it('is asked for once however many clients show it, and only so many are asked for at a time', async () => {
    const harness = await startGateway(world, { limits: { maxLookUps: 1 } });
    const release = harness.source.hold('readBySerial');
    const [one, two] = [await world.issue(), await world.issue()];
    const waiting = [harness.connect(one), harness.connect(one)].map((client) => client.ask(get('/')));
    await until('one is asked for', () => harness.source.countOf('readBySerial') === 1);
    await expectRefused(harness, two, {
      status: 503,
      reason: 'look-up-failed',
      message: /look your binding up/,
    });
    release();
    for (const answer of await Promise.all(waiting)) expect(messageOf(answer)).toMatch(/unbound/);
    expect(harness.source.countOf('readBySerial')).toBe(1);
  });

  it('is asked for together with all others that wait: a crowd that comes back takes a few queries', async () => {
    const engine = await createHttpEngine();
    onTestFinished(() => engine.close());
    const harness = await startGateway(world);
    const crowd = await Promise.all(Array.from({ length: 40 }, () => world.issue()));
    for (const [index, { serial, expiresAt }] of crowd.entries()) {
      const bindingId = `binding-${index}`;
      harness.source.live.set(bindingId, {
        ...{ bindingId, serial, expiresAt, hostId: 'h', engine: engine.address, asleep: false },
      });
    }
    const release = harness.source.hold('readBySerial');
    const answers = crowd.map((issued) => harness.connect(issued).ask(get('/_ping')));
    await until('all are there', () => harness.gateway.state().unauthenticated === crowd.length);
    await until('the first is asked for', () => harness.source.countOf('readBySerial') === 1);
    release();
    for (const answer of await Promise.all(answers)) expect(answer).toContain('200 OK');
    expect(harness.source.countOf('readBySerial')).toBeLessThan(10);
  });

  it('is refused at once where the connection to the database is lost while it is being looked up', async () => {
    const harness = await startGateway(world);
    const release = harness.source.hold('readBySerial');
    onTestFinished(release);
    const client = harness.connect(await world.issue());
    await until('it is being looked up', () => harness.source.countOf('readBySerial') === 1);
    harness.source.lose();
    release();
    expect(await client.ask(get('/_ping'))).toMatch(/^HTTP\/1\.1 503/);
  });
});

describe('TLS', () => {
  // Seen to fail without SSL_OP_NO_TICKET.
  it.each(['TLSv1.2', 'TLSv1.3'] as const)('%s sessions are never resumed', async (version) => {
    const engine = await httpEngine();
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    const only: tls.ConnectionOptions = { minVersion: version, maxVersion: version };
    const first = harness.connect(bound, only);
    const sessions: Buffer[] = [];
    first.socket.on('session', (session: Buffer) => sessions.push(session));
    await first.ask(get('/_ping'));
    expect(first.received()).toContain('200 OK');
    const last = first.socket.getSession();
    if (last !== undefined) sessions.push(last);
    for (const session of sessions) {
      // With its certificate it is a new handshake; without, it is nobody.
      const again = harness.connect(bound, { ...only, session });
      expect(await again.ask(get('/_ping'))).toContain('200 OK');
      expect(again.resumed()).toBe(false);
      const bare = await harness.connect(undefined, { ...only, session }).ask(get('/_ping'));
      expect(messageOf(bare)).toMatch(/needs a binding/);
    }
    expect(sessions.length).toBeGreaterThan(0);
  });

  it('before 1.2 is not spoken', async () => {
    const harness = await startGateway(world);
    const bound = await harness.bind(undefined);
    const old: tls.ConnectionOptions = {
      ...{ minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'ALL:@SECLEVEL=0' },
    };
    const { socket } = harness.connect(bound, old);
    await until('it is gone', () => socket.destroyed);
    expect(harness.gateway.state().counters).toMatchObject({ failedHandshakes: 1, admitted: 0 });
  });

  it('is all that is spoken', async () => {
    const harness = await startGateway(world);
    const socket = net.connect({ host: '127.0.0.1', port: harness.port });
    socket.on('error', () => undefined);
    socket.write(get('/_ping'));
    await until('it is gone', () => socket.destroyed);
    expect(harness.gateway.state()).toMatchObject({ strangers: 0, counters: { failedHandshakes: 1 } });
  });

  it('gets another certificate and other authorities while it runs; what is open stays', async () => {
    const engine = await httpEngine();
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    const open = harness.connect(bound);
    open.socket.write(attach);
    await until('it is open', () => open.received().includes('UPGRADED'));

    const next = await createWorld();
    harness.gateway.replaceTls(await gatewayTls(next.clientAuthority, next.serverAuthority));
    const ca = next.serverAuthority.certificatePem;
    expect(messageOf(await harness.connect(bound, { ca }).ask(get('/_ping')))).toMatch(/needs a binding/);
    const issued: IssuedCertificate = await next.issue();
    harness.source.put({ ...bound.binding, bindingId: 'next', serial: issued.serial });
    expect(await harness.connect(issued, { ca }).ask(get('/_ping'))).toContain('200 OK');
    open.socket.end('still here');
    expect(await open.ended).toContain('still here');
  });

  it('keeps its certificate where the next one can not be used', async () => {
    const engine = await httpEngine();
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    const other = await gatewayTls(world.clientAuthority, world.serverAuthority);
    expect(() => {
      harness.gateway.replaceTls({ ...world.tls, key: other.key });
    }).toThrow(/key values mismatch/);
    expect(() => {
      harness.gateway.replaceTls({ ...world.tls, clientCas: [] });
    }).toThrow(/clientCas/);
    expect(await harness.connect(bound).ask(get('/_ping'))).toContain('200 OK');
  });
});

it('a client that has gone while its serial was looked up leaves nothing behind', async () => {
  const engine = await httpEngine();
  const harness = await startGateway(world);
  const release = harness.source.hold('readBySerial');
  const issued = await world.issue();
  harness.source.live.set('b1', {
    ...{ bindingId: 'b1', serial: issued.serial, hostId: 'h1', expiresAt: issued.expiresAt, asleep: false },
    engine: engine.address,
  });
  const client = harness.connect(issued);
  await until('it is being looked up', () => harness.source.countOf('readBySerial') === 1);
  client.socket.destroy();
  await turns();
  release();
  await until('nothing is left', () => {
    const { unauthenticated: strangers, connections } = harness.gateway.state();
    return strangers + connections + engine.open() === 0;
  });
});
