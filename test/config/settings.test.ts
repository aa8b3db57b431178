import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { brokerCredentials, databaseUrl, masterKeyText, siteId } from '../../src/config/secrets.ts';
import { readSettings, SettingsError } from '../../src/config/settings.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'berth-settings-'));
});
afterEach(() => rm(directory, { recursive: true }));

describe('settings', () => {
  it('settings: have defaults', () => {
    expect(readSettings({})).toMatchObject({
      stateDirectory: '/var/lib/berth',
      hypervisor: 'qemu',
      port: 8080,
      gatewayPort: 2376,
      mgmtPort: 8081,
      mgmtAddress: '127.0.0.1',
      syncWaitMs: 2500,
    });
    expect(readSettings({ BERTH_PORT: ' ' }).port).toBe(8080);
  });

  it("settings: the gateway's further names are DNS names and IP addresses", () => {
    const names = 'docker.example.org, 192.0.2.7 ,2001:db8::7,a,x1.7a';
    expect(readSettings({ BERTH_GATEWAY_NAMES: names }).gatewayNames).toEqual([
      'docker.example.org',
      '192.0.2.7',
      '2001:db8::7',
      'a',
      'x1.7a',
    ]);
    expect(readSettings({}).gatewayNames).toEqual([]);
  });

  it.each([
    ['BERTH_STATE_DIR', 'relative/path'],
    ['BERTH_HYPERVISOR', 'xen'],
    ['BERTH_PORT', '80a'],
    ['BERTH_GATEWAY_PORT', '0'],
    ['BERTH_MGMT_PORT', '65536'],
    ['BERTH_SYNC_WAIT_MS', '-1'],
    ['BERTH_SYNC_WAIT_MS', '26000'],
    ['BERTH_EXTERNAL_HOST', 'a b'],
    ['BERTH_GATEWAY_NAMES', 'docker.example.org,'],
    ['BERTH_GATEWAY_NAMES', 'docker.example.org:2376'],
    ['BERTH_GATEWAY_NAMES', '*.example.org'],
    ['BERTH_GATEWAY_NAMES', '192.0.2.256'],
    ['BERTH_GATEWAY_NAMES', '[2001:db8::7]'],
    ['BERTH_GATEWAY_NAMES', 'fe80::1%eth0'],
    ['BERTH_GATEWAY_NAMES', Array.from({ length: 51 }, (_, index) => `n${index}`).join()],
    ['BERTH_CATALOG', '/does/not/exist'],
    ['BERTH_MASTER_KEY_FILE', '/does/not/exist'],
    ['DATABASE_URL', 'mysql://x'],
    ['BERTH_PUBLISHED_PORTS', '2000-1000'],
    ['BERTH_HOST_NETWORK', '10.0.0.0/30'],
    ['BERTH_DNS_SERVERS', '1.1.1.1,x'],
    ['BERTH_DNS_SERVERS', '127.0.0.53'],
    ['BERTH_DNS_SERVERS', '08.8.8.8'],
    ['BERTH_DENY_NETWORKS', '198.51.100.7'],
    ['BERTH_DENY_NETWORKS', '198.51.100.0/24,example.com/24'],
    ['BERTH_LOG_LEVEL', 'loud'],
    ['BERTH_BROKER_PASSWORD', 'secret-in-the-environment'],
  ])('settings: an error names %s if it is %s', (name, value) => {
    const read = () => readSettings({ [name]: value });
    expect(read).toThrow(SettingsError);
    expect(read).toThrow(name);
  });

  it('settings: an error names all invalid ones at once and shows no password', () => {
    const read = () =>
      readSettings({ BERTH_PORT: 'x', BERTH_MGMT_PORT: 'y', BERTH_BROKER_PASSWORD: 'pass-word' });
    expect(read).toThrow(/BERTH_PORT[^]*BERTH_MGMT_PORT/);
    expect(read).not.toThrow('pass-word');
  });

  it('settings: refuse ports that are used twice', () => {
    expect(() => readSettings({ BERTH_PORT: '9000', BERTH_MGMT_PORT: '9000' })).toThrow('both 9000');
    expect(() => readSettings({ BERTH_PORT: '20001' })).toThrow('BERTH_PUBLISHED_PORTS');
    // A published port of this number would lead to the engine itself.
    expect(() => readSettings({ BERTH_PUBLISHED_PORTS: '2000-3000' })).toThrow('2375');
  });
});

describe('secrets', () => {
  const settings = () => readSettings({ BERTH_STATE_DIR: directory });

  it('secrets: are generated once, readable by their owner only', async () => {
    const [first, second] = await Promise.all([brokerCredentials(settings()), brokerCredentials(settings())]);
    expect(first).toEqual(second);
    expect(first.broker.password).not.toBe(first.mgmt.password);
    const key = await masterKeyText(settings(), () => 'made once');
    expect(await masterKeyText(settings(), () => 'made again')).toBe(key);
    expect(await siteId(settings())).toMatch(/^[0-9a-f]{4}$/);
    for (const file of ['credentials.json', 'master.key']) {
      expect((await stat(path.join(directory, file))).mode & 0o777).toBe(0o600);
    }
  });

  it("secrets: take the platform's password from the configured file", async () => {
    const file = path.join(directory, 'password');
    await writeFile(file, 'from-a-file\n');
    const environment = {
      BERTH_STATE_DIR: directory,
      BERTH_BROKER_USERNAME: 'cf',
      BERTH_BROKER_PASSWORD_FILE: file,
    };
    expect((await brokerCredentials(readSettings(environment))).broker).toEqual({
      username: 'cf',
      password: 'from-a-file',
    });
    await writeFile(file, 'new\nformer\n');
    expect(await brokerCredentials(readSettings(environment))).toMatchObject({
      broker: { username: 'cf', password: 'new' },
      formerPassword: 'former',
    });
    await writeFile(file, 'new\nformer\nolder\n');
    await expect(brokerCredentials(readSettings(environment))).rejects.toThrow('more than two lines');
  });

  it('secrets: damaged files are named and not replaced', async () => {
    const file = path.join(directory, 'credentials.json');
    await writeFile(file, '{"broker":{}}');
    await expect(brokerCredentials(settings())).rejects.toThrow(file);
    expect(await readFile(file, 'utf8')).toBe('{"broker":{}}');
    const url = path.join(directory, 'url');
    await writeFile(url, 'not a url with pass-word');
    const wrong = databaseUrl(readSettings({ BERTH_STATE_DIR: directory, DATABASE_URL_FILE: url }));
    await expect(wrong).rejects.toThrow('DATABASE_URL_FILE');
    await expect(wrong).rejects.not.toThrow('pass-word');
  });
});
