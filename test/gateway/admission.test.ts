import { beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { createCertificateAuthority } from '../../src/certificates/ca.ts';
import { issueClientCertificate } from '../../src/certificates/client-certificate.ts';
import { createServerRequest, signServerRequest } from '../../src/certificates/server-certificate.ts';
import { createWorld, inDays, type World } from './support/certificates.ts';
import { deadAddress, startHttpEngine } from './support/engine.ts';
import { get, startGateway } from './support/harness.ts';
import { expectRefused } from './support/refused.ts';
import { turns, until } from './support/until.ts';

let world: World;

beforeAll(async () => {
  world = await createWorld();
});

describe('refusals send a message to the client and no byte to an engine', () => {
  it('gateway: refuses a client without a certificate', async () => {
    const harness = await startGateway(world);
    await expectRefused(harness, undefined, { status: 403, reason: 'untrusted', message: /needs a binding/ });
  });

  it('gateway: refuses a certificate of another CA, even with the serial of a live binding', async () => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    const otherCa = await createCertificateAuthority({ commonName: 'clients', validForDays: 1 });
    const forged = await issueClientCertificate(otherCa, {
      ...{ commonName: 'binding', serial: bound.serial, notAfter: new Date(Date.now() + 3_600_000) },
    });
    await expectRefused(harness, forged, { status: 403, reason: 'untrusted', message: /needs a binding/ });
    expect(engine.connections()).toBe(0);
  });

  it("gateway: refuses a server certificate of the clients' CA", async () => {
    const harness = await startGateway(world);
    const { requestPem, privateKeyPem } = await createServerRequest('x');
    const grant = { hosts: ['localhost'], notAfter: inDays(1) };
    const certificatePem = await signServerRequest(world.clientCa, requestPem, grant);
    await expectRefused(
      harness,
      { certificatePem, privateKeyPem },
      {
        ...{ status: 403, reason: 'untrusted', message: /needs a binding/ },
      },
    );
  });

  it('gateway: refuses an expired certificate, even if its binding is live', async () => {
    const engine = await startHttpEngine();
    vi.useFakeTimers({ toFake: ['Date'], now: inDays(-3) });
    onTestFinished(() => {
      vi.useRealTimers();
    });
    const ca = await createCertificateAuthority({ commonName: 'clients', validForDays: 10 });
    const old = await issueClientCertificate(ca, { commonName: 'binding', notAfter: inDays(1) });
    vi.useRealTimers();
    const harness = await startGateway({
      ...world,
      tls: { ...world.tls, clientCas: [ca.certificatePem] },
    });
    await harness.bind(engine.address, { serial: old.serial });
    await expectRefused(harness, old, { status: 403, reason: 'expired', message: /has expired/ });
    expect(engine.connections()).toBe(0);
  });

  it('gateway: refuses an expired binding whose certificate has not expired', async () => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address, { expiresAt: new Date(Date.now() - 1) });
    await expectRefused(harness, bound, { status: 403, reason: 'expired', message: /has expired/ });
    expect(engine.connections()).toBe(0);
  });

  it('gateway: refuses a certificate whose binding was revoked', async () => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    harness.source.revoke(bound.binding.bindingId);
    await until('it is acknowledged', () => harness.source.acknowledged.length === 1);
    await expectRefused(harness, bound, { status: 403, reason: 'unknown', message: /unbound/ });
    expect(engine.connections()).toBe(0);
  });

  it('gateway: refuses a binding whose host has no address', async () => {
    const harness = await startGateway(world);
    const bound = await harness.bind(undefined);
    await expectRefused(harness, bound, { status: 503, reason: 'host-away', message: /restarted/ });
  });

  it('gateway: refuses a binding whose engine accepts no connection, also on a second attempt', async () => {
    const harness = await startGateway(world);
    const bound = await harness.bind(await deadAddress());
    const expected = { status: 502, reason: 'engine-unreachable', message: /engine does not answer/ };
    await expectRefused(harness, bound, expected);
    await until('no connection is left', () => harness.gateway.state().connections === 0);
    expect(harness.lines.join('\n')).toContain('ECONNREFUSED');
    const { host, port } = bound.binding.engine ?? {};
    const answer = await harness.connect(bound).ask(get('/_ping'));
    expect(answer).toMatch(/^HTTP\/1\.1 502/);
    // The addresses of hosts are confidential.
    expect(answer).not.toContain(`${host ?? ''}:`);
    expect(answer).not.toContain(String(port));
  });

  it('gateway: refuses connections beyond the limit of a binding', async () => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world, { limits: { maxConnectionsPerBinding: 2 } });
    const [bound, other] = [await harness.bind(engine.address), await harness.bind(engine.address)];
    const first = harness.connect(bound);
    harness.connect(bound);
    await until('two are open', () => harness.gateway.state().connections === 2);
    await expectRefused(harness, bound, { status: 503, reason: 'too-many', message: /too many connections/ });
    expect(await harness.connect(other).ask(get('/_ping'))).toContain('200 OK');
    first.socket.destroy();
    await until('one is closed', () => harness.gateway.state().connections === 1);
    expect(await harness.connect(bound).ask(get('/_ping'))).toContain('200 OK');
  });
});

describe('a refused client', () => {
  it('gateway: answers a refused HEAD request, the first of docker, without a body', async () => {
    const harness = await startGateway(world);
    const answer = await harness.connect(await harness.bind(undefined)).ask(get('/_ping', 'HEAD'));
    expect(answer).toMatch(/^HTTP\/1\.1 503 .*\r\n\r\n$/s);
    expect(answer).toMatch(/Content-Length: [1-9]/);
  });

  it('gateway: answers a refused client that sends a large body', async () => {
    const harness = await startGateway(world);
    const client = harness.connect(await harness.bind(undefined));
    client.socket.write(get('/images/load', 'POST'));
    const content = Buffer.alloc(4 * 1024 * 1024);
    client.socket.write(content);
    expect(await client.ended).toMatch(/^HTTP\/1\.1 503 .*restarted/s);
  });

  it('gateway: drops a refused client that sends no request in time, without an answer', async () => {
    const harness = await startGateway(world, { limits: { handshakeTimeoutMs: 300 } });
    const away = harness.connect(await harness.bind(undefined));
    const unreachable = harness.connect(await harness.bind(await deadAddress()));
    expect(await Promise.all([away.ended, unreachable.ended])).toEqual(['', '']);
    await until('both are closed', () => {
      const { unauthenticated, connections } = harness.gateway.state();
      return unauthenticated + connections === 0;
    });
  });

  it('gateway: closes a client that had ended its side before it was refused', async () => {
    const harness = await startGateway(world);
    const release = harness.source.delay('readBySerial');
    const client = harness.connect(await world.issue());
    await until('it is being looked up', () => harness.source.countOf('readBySerial') === 1);
    client.socket.end();
    await turns();
    release();
    // Well before the handshake timeout of 10 s.
    await until('it is closed', () => harness.gateway.state().unauthenticated === 0, 5_000);
    expect(harness.gateway.state().counters.refused.unknown).toBe(1);
  });

  it('gateway: drops a refused client that reads no answer and sends without end', async () => {
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
      await until('it is closed', () => socket.destroyed);
    }
    expect(harness.gateway.state()).toMatchObject({ unauthenticated: 0, connections: 0 });
  });
});
