/* eslint-disable max-lines -- one search over everything that one broker leaves behind */
import { createPrivateKey, createPublicKey, randomBytes, X509Certificate } from 'node:crypto';
import { mkdtemp, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import tls from 'node:tls';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { builtInCatalog } from '../../src/core/catalog/built-in.ts';
import type { Credentials } from '../../src/http/osb/credentials-body.ts';
import { createKeyRing } from '../../src/secrets/key-ring.ts';
import { createMasterKeyText, masterKeyFromText } from '../../src/secrets/master-key.ts';
import type { Answer } from '../support/broker-process.ts';
import { makeSimulatedProcess, secretFile, type SimulatedProcess } from '../support/simulated-process.ts';

/** Files of the state directory that contain secrets by design (docs/architecture.md). */
const secretFiles = [
  /^credentials\.json$/,
  /^master\.key$/,
  /^database-url\.(api|gateway|worker)$/,
  /^postgres\/password$/,
];

const brokerPassword = `broker-${randomBytes(18).toString('base64url')}`;
let directory: string;
let broker: SimulatedProcess;
/** All secrets of this run, by description. */
const secrets = new Map<string, string>();
/** Arguments and environments of all processes, read while they ran. */
let processes = '';

const passwordOf = (url: string) => /:\/\/[^:]+:([^@]+)@/.exec(url)?.[1] ?? '';

async function ask<T = unknown>(method: string, route: string, body?: object): Promise<Answer<T>> {
  const isMgmt = route.startsWith('/mgmt');
  const user = isMgmt ? `operator:${secrets.get('operator password') ?? ''}` : `platform:${brokerPassword}`;
  const response = await fetch(`http://127.0.0.1:${isMgmt ? broker.mgmtPort : broker.port}${route}`, {
    method,
    headers: {
      Authorization: `Basic ${Buffer.from(user).toString('base64')}`,
      'X-Broker-API-Version': '2.17',
      ...(body !== undefined && { 'Content-Type': 'application/json' }),
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  return { status: response.status, body: (await response.json()) as T };
}

/** The supervisor, all its descendants, and Postgres, which is not one of them. */
async function pids(): Promise<number[]> {
  const parents = new Map<number, number>();
  const named: number[] = [];
  for (const name of (await readdir('/proc')).filter((entry) => /^\d+$/.test(entry))) {
    const read = (what: string) => readFile(`/proc/${name}/${what}`, 'latin1').catch(() => '');
    const parent = /^PPid:\s+(\d+)$/m.exec(await read('status'))?.[1];
    if (parent !== undefined) parents.set(Number(name), Number(parent));
    if ((await read('cmdline')).includes(broker.stateDirectory)) named.push(Number(name));
  }
  const roots = [broker.pid(), ...named];
  const isBelow = (pid: number): boolean => {
    const parent = parents.get(pid);
    return roots.includes(pid) || (parent !== undefined && isBelow(parent));
  };
  return [...parents.keys()].filter(isBelow);
}

async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => path.join(entry.parentPath, entry.name));
}

/** Raw, base64, base64url and hexadecimal; base64 also as it looks within a longer text, at each of three offsets. */
function formsOf(secret: string): string[] {
  const bytes = Buffer.from(secret);
  const within = [0, 1, 2].map((shift) =>
    Buffer.concat([Buffer.alloc(shift), bytes])
      .toString('base64')
      // Without the characters that depend on the surrounding text.
      .slice(shift === 0 ? 0 : 4, -4),
  );
  const url = within.map((text) => text.replaceAll('+', '-').replaceAll('/', '_'));
  const hex = bytes.toString('hex');
  return [...new Set([secret, ...within, ...url, hex, hex.toUpperCase(), encodeURIComponent(secret)])];
}

/** The descriptions of the secrets that a text contains. */
function found(text: string): string[] {
  return [...secrets]
    .filter(([, secret]) => formsOf(secret).some((form) => text.includes(form)))
    .map(([name]) => name);
}

/**
 * Adds the lines of a private key (P-256, PKCS#8, PEM), each of which would be a leak. The last one contains only the end
 * of the public key, which is also part of a certificate request, so it is left out.
 */
function addKey(name: string, pem: string): void {
  const lines = pem.split('\n').filter((line) => line !== '' && !line.startsWith('-----'));
  for (const [index, line] of lines.slice(0, -1).entries()) secrets.set(`${name}, line ${index + 1}`, line);
  secrets.set(`${name}, as JSON`, JSON.stringify(pem).slice(1, -1));
  // The private number itself, independent of line breaks.
  const number = createPrivateKey(pem).export({ format: 'jwk' }).d ?? '';
  secrets.set(`${name}, private number`, number);
  secrets.set(`${name}, private number in hexadecimal`, Buffer.from(number, 'base64url').toString('hex'));
}

/** Adds the private keys of all recorded CAs, decrypted with the current master key. */
async function addCaKeys(masterKey: string): Promise<void> {
  const vault = createKeyRing([masterKeyFromText(masterKey)]);
  const client = await ownerClient();
  try {
    const { rows } = await client.query<{ id: string; name: string; sealed_key: Buffer }>(
      'SELECT id, name, sealed_key FROM certificate_authorities WHERE sealed_key IS NOT NULL',
    );
    for (const { id, name, sealed_key } of rows) {
      const opened = vault.open(sealed_key, `authorities/${id}/key`).toString('utf8');
      addKey(`private key of the ${name} CA ${id}`, opened);
    }
  } finally {
    await client.end();
  }
}

/** Adds the gateway's private key, which exists only in the memory of its process. */
async function addGatewayKey(): Promise<void> {
  const shown = await new Promise<Buffer>((resolve, reject) => {
    const socket = tls.connect(
      { host: '127.0.0.1', port: broker.gatewayPort, rejectUnauthorized: false },
      () => {
        resolve(socket.getPeerCertificate().raw);
        socket.destroy();
      },
    );
    socket.once('error', reject);
  });
  const wanted = new X509Certificate(shown).publicKey.export({ type: 'spki', format: 'pem' });
  for (const pid of await pids()) {
    if (!(await readFile(`/proc/${pid}/cmdline`, 'latin1')).includes('main.js\0gateway')) continue;
    for (const pem of await keysInMemory(pid)) {
      if (createPublicKey(pem).export({ type: 'spki', format: 'pem' }) !== wanted) continue;
      addKey("private key of the gateway's certificate", pem);
      return;
    }
  }
  throw new Error("the gateway's private key was not found in its memory");
}

/** Private keys in PEM in the writable memory of a process (proc(5), maps and mem). */
async function keysInMemory(pid: number): Promise<string[]> {
  const found = new Set<string>();
  const maps = (await readFile(`/proc/${pid}/maps`, 'utf8')).split('\n');
  const memory = await open(`/proc/${pid}/mem`, 'r');
  try {
    for (const line of maps) {
      const [, from, to] = /^([0-9a-f]+)-([0-9a-f]+) rw/.exec(line) ?? [];
      if (from === undefined || to === undefined) continue;
      const start = Number.parseInt(from, 16);
      const chunk = Buffer.alloc(Number.parseInt(to, 16) - start);
      // The mapping may be gone by now.
      await memory.read(chunk, 0, chunk.length, start).catch(() => undefined);
      const pems = chunk
        .toString('latin1')
        .matchAll(/-----BEGIN PRIVATE KEY-----\n[A-Za-z0-9+/=\n]{100,400}-----END PRIVATE KEY-----/g);
      for (const [pem] of pems) found.add(pem);
    }
  } finally {
    await memory.close();
  }
  return [...found];
}

async function ownerClient(): Promise<pg.Client> {
  const url = new URL((await secretFile(broker, 'database-url.api')).replace('@/', '@localhost/'));
  const client = new pg.Client({
    host: url.searchParams.get('host') ?? '',
    user: 'berth',
    password: await secretFile(broker, 'postgres/password'),
    database: url.pathname.slice(1),
  });
  await client.connect();
  return client;
}

async function dump(): Promise<string> {
  const client = await ownerClient();
  try {
    const { rows: tables } = await client.query<{ name: string }>(
      `SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables
       WHERE schemaname NOT IN ('pg_catalog', 'information_schema') UNION ALL SELECT 'pg_authid'
       UNION ALL SELECT 'pg_db_role_setting' UNION ALL SELECT 'pg_shdescription'`,
    );
    let text = '';
    for (const { name } of tables) {
      const { rows } = await client.query<{ row: string }>(`SELECT t::text AS row FROM ${name} AS t`);
      text += `${name}\n${rows.map(({ row }) => row).join('\n')}\n`;
    }
    return text;
  } finally {
    await client.end();
  }
}

beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'berth-secrets-'));
  const passwordFile = path.join(directory, 'password');
  await writeFile(passwordFile, brokerPassword, { mode: 0o600 });
  broker = await makeSimulatedProcess(0, {
    BERTH_BROKER_USERNAME: 'platform',
    BERTH_BROKER_PASSWORD_FILE: passwordFile,
  });
  await broker.start();

  secrets.set('broker password', brokerPassword);
  const generated = JSON.parse(await secretFile(broker, 'credentials.json')) as Record<
    'broker' | 'mgmt',
    { password: string }
  >;
  secrets.set('operator password', generated.mgmt.password);
  secrets.set('generated broker password', generated.broker.password);
  secrets.set("owner's database password", await secretFile(broker, 'postgres/password'));
  for (const name of ['api', 'gateway', 'worker']) {
    secrets.set(
      `database password of the ${name}`,
      passwordOf(await secretFile(broker, `database-url.${name}`)),
    );
  }

  const created = await ask<{ password: string }>('PUT', '/mgmt/platforms/second');
  expect(created.status).toBe(201);
  secrets.set('password of a second platform', created.body.password);

  const [offering] = builtInCatalog.offerings;
  const [plan] = offering?.plans ?? [];
  const wanted = { service_id: offering?.id, plan_id: plan?.id, organization_guid: 'o', space_guid: 's' };
  const instance = '/v2/service_instances/instance';
  expect((await ask('PUT', `${instance}?accepts_incomplete=true`, wanted)).status).toBe(201);
  // A secret in a place that does not expect one: an unknown parameter.
  secrets.set('value of an unknown parameter', 'correct-horse-battery-staple');
  const refused = await ask('PUT', `${instance}-2?accepts_incomplete=true`, {
    ...wanted,
    parameters: { password: 'correct-horse-battery-staple' },
  });
  expect(refused.status).toBe(400);
  for (const id of ['kept', 'unbound']) {
    const bound = await ask<{ credentials: Credentials }>('PUT', `${instance}/service_bindings/${id}`, {
      service_id: wanted.service_id,
      plan_id: wanted.plan_id,
    });
    expect(bound.status).toBe(201);
    addKey(`private key of the binding ${id}`, bound.body.credentials.key);
  }
  const hints = `service_id=${wanted.service_id ?? ''}&plan_id=${wanted.plan_id ?? ''}`;
  expect((await ask('DELETE', `${instance}/service_bindings/unbound?${hints}`)).status).toBe(200);

  // The CAs' keys before and after their rotation.
  await addCaKeys(await secretFile(broker, 'master.key'));
  await addGatewayKey();
  for (const name of ['client', 'server'])
    expect((await ask('POST', `/mgmt/certificate-authorities/${name}/rotate`)).status).toBe(200);
  await addCaKeys(await secretFile(broker, 'master.key'));

  // Both master keys of a rotation.
  const file = path.join(broker.stateDirectory, 'master.key');
  const former = await secretFile(broker, 'master.key');
  const next = createMasterKeyText();
  await writeFile(file, `${former}\n${next}\n`, { mode: 0o600 });
  expect((await ask('POST', '/mgmt/keys/rotate')).status).toBe(202);
  for (const [name, key] of [
    ['former master key', former],
    ['master key', next],
  ] as const) {
    secrets.set(name, key);
    secrets.set(`${name}, in hexadecimal`, Buffer.from(key, 'base64').toString('hex'));
  }
  for (const pid of await pids()) {
    for (const what of ['cmdline', 'environ']) {
      processes += `${await readFile(`/proc/${pid}/${what}`, 'latin1').catch(() => '')}\n`;
    }
  }
}, 200_000);

afterAll(async () => {
  await broker.dispose();
  await rm(directory, { recursive: true });
}, 120_000);

it('secrets: the search finds them in every encoding', () => {
  expect(secrets.size).toBeGreaterThan(15);
  for (const [name, secret] of secrets) {
    expect(secret.length, name).toBeGreaterThan(15);
    expect(found(`x ${secret} y`), name).toContain(name);
    expect(found(Buffer.from(`"${secret}" y`).toString('base64')), name).toContain(name);
    expect(found(Buffer.from(`xy${secret}zz`).toString('hex')), name).toContain(name);
  }
});

describe('secrets: none is', () => {
  it('printed by any process', () => {
    expect(broker.output().length).toBeGreaterThan(2_000);
    expect(found(broker.output())).toEqual([]);
  });

  it("in a process' arguments or environment", () => {
    expect(processes).toContain('BERTH_STATE_DIR');
    expect(processes).toContain('main.js\0gateway');
    expect(processes).toMatch(/postgres\0-D/);
    expect(found(processes)).toEqual([]);
  });

  it('in the database', async () => {
    const text = await dump();
    for (const table of ['audit', 'bindings', 'platform_passwords', 'pg_authid'])
      expect(text).toContain(table);
    expect(text).toContain('SCRAM-SHA-256');
    expect(found(text)).toEqual([]);
  });

  it("in a file of the state directory that is not documented to hold it, Postgres' own included", async () => {
    const client = await ownerClient();
    await client.query('CHECKPOINT');
    await client.end();
    const leaks: string[] = [];
    let count = 0;
    for (const file of await filesBelow(broker.stateDirectory)) {
      const name = path.relative(broker.stateDirectory, file);
      if (secretFiles.some((pattern) => pattern.test(name)) || /^postgres\/server-/.test(name)) continue;
      count += 1;
      leaks.push(...found(await readFile(file, 'latin1')).map((secret) => `${secret} in ${name}`));
    }
    expect(count).toBeGreaterThan(100);
    expect(leaks).toEqual([]);
  });
});

describe('master key', () => {
  const key = () => path.join(broker.stateDirectory, 'master.key');
  const aside = () => `${key()}.aside`;

  it('start: without the master key, or with another one, fails, names the setting and changes nothing', async () => {
    await broker.stop();
    await rename(key(), aside());
    await expect(broker.start()).rejects.toThrow(/BERTH_MASTER_KEY_FILE: .*master\.key does not exist/);
    // No new one was created.
    await expect(readFile(key())).rejects.toThrow('ENOENT');
    await writeFile(key(), `${createMasterKeyText()}\n`);
    await expect(broker.start()).rejects.toThrow(/BERTH_MASTER_KEY_FILE: .* are sealed with [0-9a-f]{16}/);
    await writeFile(key(), 'not a key\n');
    await expect(broker.start()).rejects.toThrow(/BERTH_MASTER_KEY_FILE: .* must be 32 bytes/);

    await rename(aside(), key());
    await broker.start();
    const [offering] = builtInCatalog.offerings;
    const hints = `service_id=${offering?.id ?? ''}&plan_id=${offering?.plans[0]?.id ?? ''}`;
    const kept = await ask<{ credentials: Credentials }>(
      'GET',
      `/v2/service_instances/instance/service_bindings/kept?${hints}`,
    );
    expect(kept.status).toBe(200);
    expect(kept.body.credentials.key).toContain('PRIVATE KEY');
    expect(found(broker.output())).toEqual([]);
  }, 200_000);
});
