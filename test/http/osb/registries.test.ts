import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { askEngine } from '../../../src/hypervisors/qemu/engine/engine.ts';
import { createCertificateAuthority } from '../../../src/certificates/ca.ts';
import {
  hints,
  ids,
  instance,
  makeTestBroker,
  provisionBody,
  type TestBroker,
} from '../../support/broker.ts';

let broker: TestBroker;
let certificate: string;
beforeAll(async () => {
  broker = await makeTestBroker(inject('postgres'));
  broker.startWorker();
  ({ certificatePem: certificate } = await createCertificateAuthority({
    commonName: 'registry',
    validForDays: 10,
  }));
});
afterAll(() => broker.stop());

const put = async (parameters: object, id: string = randomUUID()) => {
  const answer = await broker
    .ask('put', `${instance(id)}?accepts_incomplete=true`)
    .send({ ...provisionBody, parameters });
  const { description } = answer.body as { description?: string };
  return { id, status: answer.status, description };
};
const patch = async (id: string, parameters: object) =>
  (
    await broker
      .ask('patch', `${instance(id)}?accepts_incomplete=true`)
      .send({ service_id: ids.service, parameters })
  ).status;

/** What the engine of the instance's host reports, and what the driver was given. */
async function registriesOf(id: string) {
  const host = await broker
    .database('hosts')
    .join('instances', 'instances.id', 'hosts.instance_id')
    .where('osb_id', id)
    .first<{ engine_host: string; engine_port: number; registries: { authorities: object[] } }>('hosts.*');
  const { body } = await askEngine(
    { host: host.engine_host, port: host.engine_port },
    { method: 'GET', path: '/info', timeoutMs: 5_000, maxBytes: 65_536 },
  );
  const { Mirrors, InsecureRegistryCIDRs, IndexConfigs } = (
    JSON.parse(body.toString('utf8')) as {
      RegistryConfig: { Mirrors: string[]; InsecureRegistryCIDRs: string[]; IndexConfigs: object };
    }
  ).RegistryConfig;
  return {
    mirrors: Mirrors,
    insecure: [...InsecureRegistryCIDRs.slice(1), ...Object.keys(IndexConfigs)],
    authorities: host.registries.authorities,
  };
}

describe('registries', () => {
  it('registries: apply to the engine from the create on, can be changed, and are removed by null', async () => {
    const { id, status } = await put({
      registry_mirrors: ['https://mirror.example.org', 'http://mirror.example.org:5000/'],
      insecure_registries: ['10.9.0.0/16', 'registry.example.org:5000'],
      registry_authorities: [{ registry: 'private.example.org:8443', certificate }],
    });
    expect(status).toBe(201);
    const given = {
      mirrors: ['https://mirror.example.org/', 'http://mirror.example.org:5000/'],
      insecure: ['10.9.0.0/16', 'registry.example.org:5000'],
      authorities: [{ host: 'private.example.org:8443', certificate: `${certificate.trim()}\n` }],
    };
    expect(await registriesOf(id)).toEqual(given);

    expect(await patch(id, { registry_mirrors: ['https://other.example.org'] })).toBe(200);
    expect(await registriesOf(id)).toEqual({ ...given, mirrors: ['https://other.example.org/'] });

    const nothing = { registry_mirrors: null, insecure_registries: null, registry_authorities: null };
    expect(await patch(id, nothing)).toBe(200);
    expect(await registriesOf(id)).toEqual({ mirrors: [], insecure: [], authorities: [] });
    await broker.ask('delete', `${instance(id)}?accepts_incomplete=true&${hints}`).expect(200);
  });

  const authority = (text: string) => ({
    registry_authorities: [{ registry: 'private.example.org', certificate: text }],
  });
  it.each([
    ['a mirror without a scheme', { registry_mirrors: ['mirror.example.org'] }, /registry_mirrors\/0/],
    ['a mirror with a path', { registry_mirrors: ['https://a.example/v2'] }, /registry_mirrors\/0/],
    ['a mirror with a password', { registry_mirrors: ['https://me:word@a.example'] }, /registry_mirrors\/0/],
    ['a quote', { insecure_registries: ['a","b'] }, /insecure_registries\/0/],
    ['two dots', { insecure_registries: ['a..b'] }, /insecure_registries\/0/],
    ['an invalid port', { registry_mirrors: ['https://a.example:65536'] }, /registry_mirrors\/0/],
    ['port 0', { insecure_registries: ['a.example:0'] }, /insecure_registries\/0/],
    [
      'a hyphen at an end',
      { registry_authorities: [{ registry: 'a-.example', certificate: '' }] },
      /registry_authorities\/0\/registry/,
    ],
    ['an invalid network', { insecure_registries: ['10.0.0.0/33'] }, /insecure_registries\/0/],
    [
      'a path that leaves its folder',
      { registry_authorities: [{ registry: '../x', certificate: '' }] },
      /registry/,
    ],
    [
      'text instead of a certificate',
      authority('hello'),
      /registry_authorities\/0\/certificate is not a certificate/,
    ],
    [
      'half a certificate',
      authority('-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----'),
      /registry_authorities\/0\/certificate is not a certificate/,
    ],
    [
      'a private key',
      authority('-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----'),
      /contains a private key/,
    ],
    [
      'too many mirrors',
      { registry_mirrors: Array.from({ length: 11 }, (_, n) => `https://${n}.example`) },
      /10/,
    ],
  ])('registries: %s is refused by name, and nothing is created', async (_, parameters, words) => {
    const { id, status, description } = await put(parameters);
    expect([status, description]).toEqual([400, expect.stringMatching(words)]);
    expect((await broker.ask('get', instance(id))).status).toBe(404);
  });
});
