import { randomUUID, X509Certificate } from 'node:crypto';
import tls from 'node:tls';
import type { Knex } from 'knex';
import { afterEach, beforeEach, expect, inject, it } from 'vitest';
import type { IssuedCredentials } from '../../src/core/ports/certificate-issuer.ts';
import type { CertificateAuthorityStore } from '../../src/core/ports/certificate-authorities.ts';
import { createGateway } from '../../src/gateway/gateway.ts';
import { metricsText } from '../../src/http/mgmt/metrics.ts';
import { createKeyRing } from '../../src/secrets/key-ring.ts';
import { createMasterKeyText, masterKeyFromText } from '../../src/secrets/master-key.ts';
import {
  type CertificateAuthorities,
  openCertificateAuthorities,
} from '../../src/certificates/ca-service.ts';
import { obtainGatewayTls } from '../../src/certificates/gateway-tls.ts';
import {
  createCertificateAuthorityStore,
  createGatewayCertificateAuthorities,
} from '../../src/postgres/certificate-authorities.ts';
import {
  createCertificateRequester,
  createCertificateRequestQueue,
} from '../../src/postgres/certificate-requests.ts';
import { channels } from '../../src/postgres/channels.ts';
import { openDatabase } from '../../src/postgres/database.ts';
import { createGatewayNames } from '../../src/postgres/gateway-names.ts';
import { startListener } from '../../src/postgres/listener.ts';
import { createLiveBindingsSource } from '../../src/postgres/live-bindings.ts';
import { createOverview } from '../../src/postgres/overview.ts';
import { createPresence, createPresences } from '../../src/postgres/presence.ts';
import { instance, makeTestBroker, provisionBody, type TestBroker } from '../support/broker.ts';
import { eventually } from '../support/eventually.ts';
import { silentLogger } from '../support/logger.ts';

/** The CAs of an api and a real gateway, each with its database role, and bindings in Postgres. */
let broker: TestBroker;
let database: Knex;
let store: CertificateAuthorityStore;
let cas: CertificateAuthorities;
let port: number;
const cleanUp: (() => Promise<unknown> | undefined)[] = [];
const vault = createKeyRing([masterKeyFromText(createMasterKeyText())]);

beforeEach(async () => {
  broker = await makeTestBroker(inject('postgres'));
  cleanUp.push(() => broker.stop());
  broker.startWorker();
  await broker
    .ask('put', `${instance('i')}?accepts_incomplete=true`)
    .send(provisionBody)
    .expect(201);
  database = openDatabase(broker.urls.api);
  cleanUp.push(() => database.destroy());
  const listen = async (connectionString: string) => {
    const listener = await startListener({
      connectionString,
      listenTo: [channels.certificateRequests, channels.certificateAuthorities, channels.presence],
      onLost: () => undefined,
    });
    cleanUp.push(() => listener.stop());
    return listener;
  };
  const apiListener = await listen(broker.urls.api);
  store = createCertificateAuthorityStore(database, apiListener);
  const gatewayNames = createGatewayNames(database);
  await gatewayNames.replace(['127.0.0.1']);
  cas = await openCertificateAuthorities({
    ...{ store, presences: createPresences(database, apiListener), vault, logger: silentLogger },
    gatewayNames,
    settleMs: 3_600_000,
  });
  cleanUp.push(() => cas.stop());
  const stopAnswering = createCertificateRequestQueue(database, apiListener).answer(
    (request) => cas.signForGateway(request),
    () => undefined,
  );
  cleanUp.push(() => {
    stopAnswering();
    return undefined;
  });

  const gatewayDatabase = openDatabase(broker.urls.gateway, { maxConnections: 2 });
  cleanUp.push(() => gatewayDatabase.destroy());
  const gatewayListener = await listen(broker.urls.gateway);
  const renewing = await obtainGatewayTls({
    requests: createCertificateRequester(gatewayDatabase, gatewayListener),
    cas: createGatewayCertificateAuthorities(gatewayDatabase, gatewayListener),
    presence: createPresence(gatewayDatabase, 'gateway'),
    logger: silentLogger,
  });
  const gateway = createGateway({
    source: createLiveBindingsSource({ connectionString: broker.urls.gateway, connections: () => 0 }),
    tls: renewing.tls,
    port: 0,
    host: '127.0.0.1',
    logger: silentLogger,
  });
  ({ port } = await gateway.start());
  cleanUp.push(() => gateway.stop());
  cleanUp.push(
    renewing.watch((next) => {
      gateway.replaceTls(next);
    }),
  );
  await eventually(
    'the gateway has announced its CAs',
    async () => (await database('presences')).length === 1,
  );
}, 60_000);
afterEach(async () => {
  for (const act of cleanUp.splice(0).reverse()) await act();
});

/** Creates a binding as the api does. */
async function bind(): Promise<IssuedCredentials & { id: string }> {
  const id = randomUUID();
  const issued = await cas.issuer.issue({
    commonName: id,
    notAfter: new Date(Date.now() + 86_400_000),
  });
  const [host] = await broker.store.records.livingHosts();
  if (host === undefined) throw new Error('there is no host');
  await broker.store.records.insertBinding({
    ...{ id, osbId: id, instanceId: host.instanceId, tenantId: host.tenantId, serial: issued.serial },
    ...{ certificate: issued.certificatePem, sealedCredentials: Buffer.from('x'), createdAt: new Date() },
    ...{ expiresAt: issued.expiresAt, caIds: issued.caIds },
    request: { appGuid: undefined, parameters: {}, predecessor: undefined },
  });
  return { ...issued, id };
}

/** Asks for the engine's version as the docker CLI does: trusts the binding's `ca` and nothing else. */
function version(credentials: IssuedCredentials): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = tls.connect({
      ...{ host: '127.0.0.1', port, ca: credentials.serverCaPem },
      ...{ cert: credentials.certificatePem, key: credentials.privateKeyPem },
    });
    let answer = '';
    socket.on('secureConnect', () => {
      socket.write('GET /version HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n');
    });
    socket.on('data', (chunk: Buffer) => (answer += chunk.toString()));
    socket.on('end', () => {
      resolve(answer.split('\r\n')[0] ?? '');
      socket.end();
    });
    socket.on('error', reject);
  });
}

const ok = 'HTTP/1.1 200 OK';
const states = async (name: string) =>
  (await cas.list())
    .filter((one) => one.name === name)
    .map(({ state, liveBindings }) => [state, liveBindings]);

it('client CA rotation: the new CA signs, and bindings of the former one work until the last has ended', async () => {
  const before = await bind();
  expect(await version(before)).toBe(ok);
  await cas.rotate('client');
  const after = await bind();
  expect(after.caIds.client).not.toBe(before.caIds.client);
  expect(await version(before)).toBe(ok);
  expect(await version(after)).toBe(ok);
  expect(await states('client')).toEqual([
    ['current', 1],
    ['retiring', 1],
  ]);
  // Its key is deleted at once: it can't sign any more.
  const [former] = await broker
    .database<{ state: string; sealed_key: Buffer | null }>('certificate_authorities')
    .where({ state: 'retiring' });
  expect(former?.sealed_key).toBeNull();

  await store.retire(0);
  expect(await states('client')).toEqual([
    ['current', 1],
    ['retiring', 1],
  ]);
  await broker.store.records.revokeBinding(before.id);
  // Not while a bind that began under it may still be in progress.
  await store.retire(3_600_000);
  expect((await states('client'))[1]).toEqual(['retiring', 0]);
  await store.retire(0);
  expect((await states('client'))[0]).toEqual(['retired', 0]);
  await eventually('the gateway does not trust it any more', async () => {
    const answer = await version(before).catch((error: unknown) => String(error));
    return answer !== ok && (await version(after)) === ok;
  });
});

it('server CA rotation: apps that trust only a former CA still accept the gateway', async () => {
  const bindings = [await bind()];
  for (let rotation = 0; rotation < 3; rotation += 1) {
    await cas.rotate('server');
    bindings.push(await bind());
    for (const one of bindings) expect(await version(one)).toBe(ok);
  }
  expect(new Set(bindings.map(({ serverCaPem }) => serverCaPem)).size).toBe(4);
  // An app gets exactly one CA to trust, not the former one in addition.
  for (const { serverCaPem } of bindings) expect(serverCaPem.match(/BEGIN/g)).toHaveLength(1);
  // The oldest binding trusts only the first CA, which did not sign the gateway's certificate.
  const [oldest, newest] = [bindings[0], bindings.at(-1)];
  expect(
    new X509Certificate(newest?.serverCaPem ?? '').checkIssued(
      new X509Certificate(oldest?.serverCaPem ?? ''),
    ),
  ).toBe(false);
}, 60_000);

it('CA rotation: is refused while a gateway does not use the new CA, and continues at the next call', async () => {
  const dead = createPresence(database, 'gateway');
  await dead.announce([]);
  // A gateway that hangs: alive, but never up to date.
  const hanging = setInterval(() => void dead.announce([]), 2_000);
  try {
    await expect(cas.rotate('client')).rejects.toThrow('A gateway has not loaded the new CA');
  } finally {
    clearInterval(hanging);
  }
  expect((await states('client')).map(([state]) => state)).toEqual(['next', 'current']);
  const boundBetween = await bind();
  expect(await version(boundBetween)).toBe(ok);
  await dead.leave();
  await cas.rotate('client');
  expect((await states('client')).map(([state]) => state)).toEqual(['current', 'retiring']);
  expect(await version(boundBetween)).toBe(ok);
}, 60_000);

it('serials: are never reused, by one CA or by two', async () => {
  const first = await bind();
  await cas.rotate('client');
  const second = await bind();
  expect(second.serial).not.toBe(first.serial);
  await broker.store.records.revokeBinding(first.id);
  const [host] = await broker.store.records.livingHosts();
  if (host === undefined) throw new Error('there is no host');
  const again = broker.store.records.insertBinding({
    ...{ id: randomUUID(), osbId: 'again', instanceId: host.instanceId, tenantId: host.tenantId },
    ...{ serial: first.serial, certificate: second.certificatePem, sealedCredentials: Buffer.from('x') },
    ...{ createdAt: new Date(), expiresAt: second.expiresAt, caIds: second.caIds },
    request: { appGuid: undefined, parameters: {}, predecessor: undefined },
  });
  await expect(again).rejects.toThrow('bindings_serial_key');
  // Because its row is never removed: no database role may delete or change it.
  await expect(database('bindings').where({ id: first.id }).delete()).rejects.toThrow('permission denied');
  await expect(database('bindings').where({ id: first.id }).update({ serial: '1' })).rejects.toThrow(
    'permission denied',
  );
});

it('issue: allows the longest validity of a catalog, and no certificate outlives its CA', async () => {
  const issue = (days: number) =>
    cas.issuer.issue({
      commonName: randomUUID(),
      notAfter: new Date(Date.now() + days * 86_400_000),
    });
  const daysOf = (end: Date) => Math.round((end.getTime() - Date.now()) / 86_400_000);
  expect(daysOf((await issue(3650)).expiresAt)).toBe(3650);
  // As in a CA's last years: the certificate expires with its CA, and `expiresAt` says so.
  const current = (await cas.list()).find(({ name }) => name === 'client');
  expect((await issue(30 * 365)).expiresAt).toEqual(current?.expiresAt);
  const { text } = await metricsText(await createOverview(database).counts(), [], []);
  expect(text).toContain(
    `berth_ca_expiry_timestamp_seconds{name="client",state="current"} ${Number(current?.expiresAt) / 1000}\n`,
  );
});

it('CA keys: are bound to their row and can not be opened in that of a successor', async () => {
  const current = { name: 'client', state: 'current' };
  const former = await broker
    .database('certificate_authorities')
    .where(current)
    .first<{ sealed_key: Buffer }>('sealed_key');
  await cas.rotate('client');
  await broker.database('certificate_authorities').where(current).update({ sealed_key: former.sealed_key });
  const listener = await startListener({
    connectionString: broker.urls.api,
    listenTo: [channels.certificateAuthorities],
    onLost: () => undefined,
  });
  cleanUp.push(() => listener.stop());
  await expect(
    openCertificateAuthorities({
      ...{ store: createCertificateAuthorityStore(database, listener), vault, logger: silentLogger },
      ...{ presences: createPresences(database, listener), gatewayNames: createGatewayNames(database) },
    }),
  ).rejects.toThrow(/copied there from another row/);
});
