import net from 'node:net';
import type tls from 'node:tls';
import { beforeAll, describe, expect, it } from 'vitest';
import type { IssuedCertificate } from '../../src/core/ports/certificate-issuer.ts';
import { createWorld, gatewayTls, type World } from './support/certificates.ts';
import { startHttpEngine } from './support/engine.ts';
import { get, openStream, startGateway } from './support/harness.ts';
import { messageOf } from './support/refused.ts';
import { until } from './support/until.ts';

let world: World;

beforeAll(async () => {
  world = await createWorld();
});

describe('TLS', () => {
  // Fails without SSL_OP_NO_TICKET.
  it.each(['TLSv1.2', 'TLSv1.3'] as const)('TLS: never resumes a %s session', async (version) => {
    const engine = await startHttpEngine();
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
      // With the certificate it is a new handshake; without one the client is unauthenticated.
      const again = harness.connect(bound, { ...only, session });
      expect(await again.ask(get('/_ping'))).toContain('200 OK');
      expect(again.resumed()).toBe(false);
      const bare = await harness.connect(undefined, { ...only, session }).ask(get('/_ping'));
      expect(messageOf(bare)).toMatch(/needs a binding/);
    }
    expect(sessions.length).toBeGreaterThan(0);
  });

  it('TLS: rejects versions before 1.2', async () => {
    const harness = await startGateway(world);
    const bound = await harness.bind(undefined);
    const old: tls.ConnectionOptions = {
      ...{ minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'ALL:@SECLEVEL=0' },
    };
    const { socket } = harness.connect(bound, old);
    await until('it is closed', () => socket.destroyed);
    expect(harness.gateway.state().counters).toMatchObject({ failedHandshakes: 1, admitted: 0 });
  });

  it('TLS: drops a client that speaks plain HTTP', async () => {
    const harness = await startGateway(world);
    const socket = net.connect({ host: '127.0.0.1', port: harness.port });
    socket.on('error', () => undefined);
    socket.write(get('/_ping'));
    await until('it is closed', () => socket.destroyed);
    expect(harness.gateway.state()).toMatchObject({ unauthenticated: 0, counters: { failedHandshakes: 1 } });
  });

  it('TLS: replaces certificate and client CAs while running, and leaves open streams open', async () => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    const open = await openStream(harness, bound);
    const next = await createWorld();
    harness.gateway.replaceTls(await gatewayTls(next.clientCa, next.serverCa));
    const ca = next.serverCa.certificatePem;
    expect(messageOf(await harness.connect(bound, { ca }).ask(get('/_ping')))).toMatch(/needs a binding/);
    const issued: IssuedCertificate = await next.issue();
    harness.source.put({ ...bound.binding, bindingId: 'next', serial: issued.serial });
    expect(await harness.connect(issued, { ca }).ask(get('/_ping'))).toContain('200 OK');
    open.socket.end('still here');
    expect(await open.ended).toContain('still here');
  });

  it('TLS: retains its certificate if the next one is invalid', async () => {
    const engine = await startHttpEngine();
    const harness = await startGateway(world);
    const bound = await harness.bind(engine.address);
    const other = await gatewayTls(world.clientCa, world.serverCa);
    expect(() => {
      harness.gateway.replaceTls({ ...world.tls, key: other.key });
    }).toThrow(/key values mismatch/);
    expect(() => {
      harness.gateway.replaceTls({ ...world.tls, clientCas: [] });
    }).toThrow(/clientCas/);
    expect(await harness.connect(bound).ask(get('/_ping'))).toContain('200 OK');
  });
});
