import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { readSettings, SettingsError } from '../../src/config/settings.ts';
import { listenerTls } from '../../src/config/tls.ts';
import { createCertificateAuthority } from '../../src/certificates/ca.ts';
import { createServerRequest, signServerRequest } from '../../src/certificates/server-certificate.ts';

let directory: string;
/** Files by name, as an operator may have them. */
const names = ['cert', 'key', 'ca', 'otherKey', 'text'] as const;
const file = (name: (typeof names)[number]) => path.join(directory, name);

beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'berth-tls-'));
  const authority = await createCertificateAuthority({ commonName: 'test', validForDays: 10 });
  const own = await createServerRequest('test');
  const cert = await signServerRequest(authority, own.requestPem, {
    hosts: ['127.0.0.1'],
    notAfter: new Date(Date.now() + 86_400_000),
  });
  const contents = {
    cert,
    key: own.privateKeyPem,
    ca: authority.certificatePem,
    otherKey: (await createServerRequest('other')).privateKeyPem,
    text: 'SECRET, and no PEM',
  };
  for (const name of names) await writeFile(file(name), contents[name]);
});
afterAll(() => rm(directory, { recursive: true }));

const read = (cert: string, key: string, ca?: string) =>
  listenerTls(
    readSettings({
      BERTH_TLS_CERT_FILE: cert,
      BERTH_TLS_KEY_FILE: key,
      BERTH_TLS_CLIENT_CA_FILE: ca,
    }),
  );

it('listenerTls: is undefined if nothing is set, else the content of the files', async () => {
  expect(await listenerTls(readSettings({}))).toBeUndefined();
  const tls = await read(file('cert'), file('key'), file('ca'));
  expect(tls?.cert).toContain('BEGIN CERTIFICATE');
  expect(tls?.clientCas).toContain('BEGIN CERTIFICATE');
  expect((await read(file('cert'), file('key')))?.clientCas).toBeUndefined();
});

it.each([
  ['the certificate is no PEM', 'BERTH_TLS_CERT_FILE', ['text', 'key']],
  ['the key is no PEM', 'BERTH_TLS_KEY_FILE', ['cert', 'text']],
  ['the key is of another certificate', 'BERTH_TLS_KEY_FILE', ['cert', 'otherKey']],
  ['the authorities are no PEM', 'BERTH_TLS_CLIENT_CA_FILE', ['cert', 'key', 'text']],
  ['an authority is none', 'BERTH_TLS_CLIENT_CA_FILE', ['cert', 'key', 'cert']],
] as const)('names the setting where %s, and shows nothing of the file', async (_what, setting, files) => {
  const [cert, key, ca] = files;
  const error: unknown = await read(file(cert), file(key), ca && file(ca)).catch((caught: unknown) => caught);
  expect(error).toBeInstanceOf(SettingsError);
  expect((error as Error).message).toMatch(new RegExp(`^${setting}: `));
  expect((error as Error).message).not.toContain('SECRET');
});

it('refuses a certificate that has expired', async () => {
  const authority = await createCertificateAuthority({ commonName: 'test', validForDays: 10 });
  const own = await createServerRequest('test');
  const notAfter = new Date(Date.now() + 1_500);
  const cert = await signServerRequest(authority, own.requestPem, { hosts: ['127.0.0.1'], notAfter });
  await writeFile(path.join(directory, 'short'), cert);
  await writeFile(path.join(directory, 'shortKey'), own.privateKeyPem);
  const files = [path.join(directory, 'short'), path.join(directory, 'shortKey')] as const;
  await expect
    .poll(() => read(...files).catch((error: unknown) => (error as Error).message), { timeout: 10_000 })
    .toMatch(/^BERTH_TLS_CERT_FILE: .* expired on /);
});

it.each([
  [{ BERTH_TLS_CERT_FILE: '/etc/hostname' }, 'BERTH_TLS_CERT_FILE and BERTH_TLS_KEY_FILE go together'],
  [{ BERTH_TLS_KEY_FILE: '/etc/hostname' }, 'BERTH_TLS_CERT_FILE and BERTH_TLS_KEY_FILE go together'],
  [{ BERTH_TLS_CLIENT_CA_FILE: '/etc/hostname' }, 'BERTH_TLS_CLIENT_CA_FILE is set, but'],
  [
    { BERTH_TLS_CERT_FILE: '/does/not/exist', BERTH_TLS_KEY_FILE: '/etc/hostname' },
    'BERTH_TLS_CERT_FILE is "/does/not/exist": it must be a file that can be read',
  ],
  [{ BERTH_RATE_PER_SECOND: '0' }, 'BERTH_RATE_PER_SECOND is "0"'],
])('settings that do not fit together are named: %j', (environment, message) => {
  expect(() => readSettings(environment)).toThrow(message);
});
