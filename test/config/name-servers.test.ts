import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { nameServerProblem, nodeNameServers } from '../../src/config/defaults.ts';
import { readSettings } from '../../src/config/settings.ts';

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'berth-resolvers-'));
});
afterAll(() => rm(directory, { recursive: true }));

const fileOf = async (name: string, ...servers: string[]) => {
  const file = path.join(directory, name);
  await writeFile(
    file,
    `# comment\n${servers.map((server) => `nameserver ${server}\n`).join('')}search example\n`,
  );
  return file;
};
const own = ['192.0.2.1', '::1'];

it('name servers: those behind a local stub resolver are taken', async () => {
  // Fails without the list of systemd-resolved: there were none, and every query was dropped.
  const stub = await fileOf('stub', '127.0.0.53');
  const real = await fileOf('real', '192.0.2.53', '2001:db8::53');
  expect(nodeNameServers([stub, real], own)).toEqual(['192.0.2.53']);
  expect(nodeNameServers([await fileOf('direct', '192.0.2.54'), real], own)).toEqual(['192.0.2.54']);
});

it('name servers: none that guests can not reach are taken, and the problem names the setting', async () => {
  const servers = nodeNameServers(
    [await fileOf('unreachable', '127.0.0.1', '192.0.2.1', '2001:db8::53'), '/nonexistent'],
    own,
  );
  expect(servers).toEqual([]);
  expect(nameServerProblem(servers, own)).toMatch(/can't resolve names.*BERTH_DNS_SERVERS/);
  expect(nameServerProblem(['192.0.2.1'], own)).toMatch(/names 192\.0\.2\.1, an address of this node/);
  expect(nameServerProblem(['192.0.2.53'], own)).toBeUndefined();
});

it('name servers: `none` is a choice and not a problem', () => {
  const { dnsServers } = readSettings({ BERTH_DNS_SERVERS: 'none' });
  expect(dnsServers).toEqual([]);
  expect(nameServerProblem(dnsServers)).toBeUndefined();
});
