import { X509Certificate } from 'node:crypto';
import { afterEach, expect, inject, it } from 'vitest';
import { openCertificateAuthorities } from '../../src/certificates/ca-service.ts';
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
import { createPresence, createPresences } from '../../src/postgres/presence.ts';
import { createKeyRing } from '../../src/secrets/key-ring.ts';
import { createMasterKeyText, masterKeyFromText } from '../../src/secrets/master-key.ts';
import { eventually } from '../support/eventually.ts';
import { silentLogger } from '../support/logger.ts';
import { createTestDatabase } from '../support/postgres.ts';

const cleanUp: (() => unknown)[] = [];
afterEach(async () => {
  for (const act of cleanUp.splice(0).reverse()) await act();
});

async function connect(connectionString: string) {
  const database = openDatabase(connectionString, { maxConnections: 2 });
  cleanUp.push(() => database.destroy());
  const listener = await startListener({
    connectionString,
    listenTo: [channels.certificateRequests, channels.certificateAuthorities, channels.presence],
    onLost: () => undefined,
  });
  cleanUp.push(() => listener.stop());
  return { database, listener };
}

// Fails without the comparison in the gateway: it keeps its certificate for 60 days.
it('gateway names: a change renews the certificate of a running gateway, and a rotation of the CA keeps them', async () => {
  const testDatabase = await createTestDatabase(inject('postgres'));
  cleanUp.push(() => testDatabase.drop());
  const urls = await testDatabase.roleUrls();
  const api = await connect(urls.api);
  const gatewayNames = createGatewayNames(api.database);
  await gatewayNames.replace(['127.0.0.1']);
  const cas = await openCertificateAuthorities({
    store: createCertificateAuthorityStore(api.database, api.listener),
    presences: createPresences(api.database, api.listener),
    vault: createKeyRing([masterKeyFromText(createMasterKeyText())]),
    ...{ gatewayNames, logger: silentLogger },
  });
  cleanUp.push(() => cas.stop());
  cleanUp.push(
    createCertificateRequestQueue(api.database, api.listener).answer(
      (request) => cas.signForGateway(request),
      () => undefined,
    ),
  );

  const gateway = await connect(urls.gateway);
  const renewing = await obtainGatewayTls({
    requests: createCertificateRequester(gateway.database, gateway.listener),
    cas: createGatewayCertificateAuthorities(gateway.database, gateway.listener),
    presence: createPresence(gateway.database, 'gateway'),
    logger: silentLogger,
  });
  let { cert } = renewing.tls;
  cleanUp.push(renewing.watch((next) => ({ cert } = next)));
  const names = () => new X509Certificate(cert).subjectAltName;
  expect(names()).toBe('IP Address:127.0.0.1');

  await gatewayNames.replace(['127.0.0.1', 'docker.example.org', '2001:db8::7']);
  const wanted = 'IP Address:127.0.0.1, IP Address:2001:DB8:0:0:0:0:0:7, DNS:docker.example.org';
  await eventually('the certificate has the names', () => names() === wanted);
  const issuer = new X509Certificate(cert).issuer;
  await eventually('the gateway is known', async () => (await api.database('presences')).length === 1);
  await cas.rotate('server');
  expect(new X509Certificate(cert).issuer).not.toBe(issuer);
  expect(names()).toBe(wanted);
  // The same names again change nothing.
  const before = cert;
  await gatewayNames.replace(['2001:db8::7', '127.0.0.1', 'docker.example.org']);
  expect(await gatewayNames.list()).toEqual(['127.0.0.1', '2001:db8::7', 'docker.example.org']);
  expect(cert).toBe(before);
  await gatewayNames.replace(['127.0.0.1']);
  await eventually('the certificate has one name', () => names() === 'IP Address:127.0.0.1');
}, 60_000);
