import { randomUUID } from 'node:crypto';
import supertest from 'supertest';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import type { PlatformCredential } from '../../src/core/ports/platforms.ts';
import { createPlatforms } from '../../src/core/platforms.ts';
import { createCredentialDirectory } from '../../src/postgres/credential-directory.ts';
import { createPlatformStore } from '../../src/postgres/platforms.ts';
import { eventually } from '../support/eventually.ts';
import { instance, makeTestBroker, operator, provisionBody, type TestBroker } from '../support/broker.ts';

let broker: TestBroker;
beforeAll(async () => {
  broker = await makeTestBroker(inject('postgres'));
  broker.startWorker();
});
afterAll(() => broker.stop());

const manage = (method: 'get' | 'put' | 'post' | 'delete', route: string) =>
  supertest(broker.mgmt)[method](route).auth(operator.username, operator.password);
const statusAs = async (credential: PlatformCredential) =>
  (await broker.askAs(credential, 'get', '/v2/catalog')).status;
const create = async (name: string) =>
  (await manage('put', `/mgmt/platforms/${name}`).expect(201)).body as PlatformCredential;
const refreshed = (credential: PlatformCredential, status: number) =>
  eventually('the api has read the change', async () => (await statusAs(credential)) === status, {
    deadlineMs: 10_000,
  });

describe('platforms', () => {
  it('platforms: the same org and instance ids on two platforms are two tenants and two instances', async () => {
    const other = await create('k8s-east');
    await refreshed(other, 200);
    const id = randomUUID();
    const put = (ask: typeof broker.ask) =>
      ask('put', `${instance(id)}?accepts_incomplete=true`).send(provisionBody);
    expect((await put(broker.ask)).status).toBe(201);
    expect((await put((method, route) => broker.askAs(other, method, route))).status).toBe(201);
    const { rows } = await broker.database.raw<{ rows: { tenants: string; hosts: string }[] }>(
      `SELECT count(DISTINCT hosts.tenant_id) AS tenants, count(*) AS hosts
       FROM hosts JOIN instances ON instances.id = hosts.instance_id WHERE osb_id = ?`,
      [id],
    );
    expect(rows[0]).toEqual({ tenants: '2', hosts: '2' });
    const third = await create('k8s-west');
    await refreshed(third, 200);
    expect((await broker.askAs(third, 'get', instance(id))).status).toBe(404);
  });

  it('platforms: a platform has two valid passwords during a rotation, never more', async () => {
    const first = await create('rotating');
    await refreshed(first, 200);
    expect((await manage('delete', '/mgmt/platforms/rotating/passwords/oldest')).status).toBe(409);
    const second = (await manage('post', '/mgmt/platforms/rotating/passwords').expect(201))
      .body as PlatformCredential;
    await refreshed(second, 200);
    expect(await statusAs(first)).toBe(200);
    expect((await manage('post', '/mgmt/platforms/rotating/passwords')).status).toBe(409);
    await manage('delete', '/mgmt/platforms/rotating/passwords/oldest').expect(200);
    await refreshed(first, 401);
    expect(await statusAs(second)).toBe(200);
    // The database enforces it as well.
    const { rows } = await broker.database.raw<{ rows: { id: string }[] }>(
      `SELECT id FROM platforms WHERE name = 'rotating'`,
    );
    const insert = (byte: number) =>
      broker.database('platform_passwords').insert({
        platform_id: rows[0]?.id,
        digest: Buffer.alloc(32, byte),
      });
    await insert(1);
    await expect(insert(2)).rejects.toThrow('two passwords already');
  });

  it('platforms: neither the list nor the database contains passwords', async () => {
    const credential = await create('listed');
    const { text } = await manage('get', '/mgmt/platforms').expect(200);
    expect(text).toContain('"name":"listed"');
    expect(text).not.toContain(credential.password);
    const { rows } = await broker.database.raw<{ rows: { row: string }[] }>(
      'SELECT platform_passwords::text AS row FROM platform_passwords',
    );
    const dump = rows.map(({ row }) => row).join('\n');
    expect(dump).not.toContain(credential.password);
    expect(dump).not.toContain(Buffer.from(credential.password).toString('hex'));
  });

  it('platforms: an invalid or taken name is refused, and the error names the field', async () => {
    await create('taken');
    for (const [name, status] of [
      ['taken', 409],
      ['No%20Name', 400],
      ['x'.repeat(51), 400],
    ] as const) {
      const answer = await manage('put', `/mgmt/platforms/${name}`);
      expect(answer.status).toBe(status);
      expect((answer.body as { description: string }).description).toMatch(/^name: /);
    }
    expect((await manage('post', '/mgmt/platforms/nobody/passwords')).status).toBe(404);
  });
});

it('platforms: a retired password is refused although no notification arrives', async () => {
  const deaf = {
    on: () => () => undefined,
    onReconnected: () => () => undefined,
    stop: () => Promise.resolve(),
  };
  const platforms = createPlatforms(createPlatformStore(broker.database));
  await platforms.create('deaf');
  await platforms.addPassword('deaf');
  const directory = await createCredentialDirectory({
    ...{ database: broker.database, listener: deaf, fixed: [], everyMs: 20 },
    onError: () => undefined,
  });
  try {
    const known = () => directory.known().filter(({ platform }) => platform.name === 'deaf').length;
    expect(known()).toBe(2);
    await platforms.retirePassword('deaf');
    await eventually('one of them is left', () => known() === 1);
  } finally {
    directory.stop();
  }
});
