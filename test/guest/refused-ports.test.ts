import { execFile } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const execute = promisify(execFile);
const program = path.join(import.meta.dirname, '../../image/guest/usr/local/lib/berth/iptables');

let folder: string;

/** The program with its paths in a folder, in front of a program that prints `real` and its arguments. */
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'berth-iptables-'));
  const text = await readFile(program, 'utf8');
  const moved = text
    .replaceAll('/usr/sbin/iptables', `${folder}/real`)
    .replaceAll('/run/berth', folder)
    .replaceAll('/var/lib/docker', folder);
  await writeFile(path.join(folder, 'iptables'), moved);
  await writeFile(path.join(folder, 'real'), '#!/bin/sh\necho "real $*"\n');
  await chmod(path.join(folder, 'real'), 0o755);
  await writeFile(path.join(folder, 'identified'), '');
  await publish(20_010, 20_019);
});

afterEach(() => rm(folder, { recursive: true }));

const publish = (first: number, last: number) =>
  writeFile(path.join(folder, 'published-ports'), `${first}\t${last}\n`);

async function container(name: string, hostPort: string, startedAt: string): Promise<void> {
  const directory = path.join(folder, 'containers', name);
  await mkdir(directory, { recursive: true });
  const bindings = `{"Binds":null,"PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"${hostPort}"}]},"Links":null}`;
  await writeFile(path.join(directory, 'hostconfig.json'), bindings);
  await writeFile(
    path.join(directory, 'config.v2.json'),
    `{"State":{"Running":false,"StartedAt":"${startedAt}"}}`,
  );
}

/** What dockerd gets for a rule that publishes a port. */
async function rule(port: number, address = '0/0', chain = 'DOCKER'): Promise<string> {
  const args = `--wait -t nat -A ${chain} -p tcp -d ${address} --dport ${port} -j DNAT --to-destination 172.17.0.2:80`;
  return execute('sh', [path.join(folder, 'iptables'), ...args.split(' ')]).then(
    ({ stdout }) => stdout,
    (error: unknown) => (error as { stderr: string }).stderr,
  );
}

describe('a port that is published', () => {
  it("a port that is published: is accepted if it is one of the host's", async () => {
    expect(await rule(20_010)).toMatch(/^real --wait -t nat -A DOCKER .* 172\.17\.0\.2:80\n$/);
    expect(await rule(20_019)).toMatch(/^real/);
    expect(await rule(20_012, '100.127.255.2')).toMatch(/^real/);
  });

  it("a port that is published: is refused with the remedy if it is not one of the host's", async () => {
    for (const port of [80, 8080, 20_009, 20_020]) {
      expect(await rule(port)).toBe(
        `port ${port} is not one of this host's published ports 20010-20019; publish one of them (-p 20010:PORT), use -p PORT for a free one, or publish for the host itself (-p 127.0.0.1:${port}:PORT)\n`,
      );
      expect(await rule(port, '100.127.255.2')).toMatch(/^port/);
    }
  });

  it('a port that is published: is refused by a host without published ports', async () => {
    await publish(709, 887);
    for (const port of [8080, 710]) {
      expect(await rule(port)).toMatch(/^this host has no published ports; .*published_ports/);
    }
  });

  it('a port that is published: is accepted for the host itself, and so is every other rule', async () => {
    expect(await rule(8080, '127.0.0.1')).toMatch(/^real/);
    expect(await rule(8080, '172.17.0.1')).toMatch(/^real/);
    expect(await rule(8080, '0/0', 'DOCKER-INGRESS')).toMatch(/^real/);
  });

  it('a port that is published: is accepted while a template is made', async () => {
    await rm(path.join(folder, 'identified'));
    await publish(709, 887);
    expect(await rule(20_010)).toMatch(/^real/);
  });

  it('a port that is published: is accepted for containers that have run before, but not for new ones', async () => {
    await container('new', '8080', '0001-01-01T00:00:00Z');
    expect(await rule(8080)).toMatch(/^port 8080/);
    await container('old', '8080', '2026-11-01T10:00:00.5Z');
    expect(await rule(8080)).toMatch(/^real/);
    expect(await rule(8081)).toMatch(/^port 8081/);
    await container('range', '9000-9010', '2026-11-01T10:00:00.5Z');
    await container('any', '', '2026-11-01T10:00:00.5Z');
    expect(await rule(9005)).toMatch(/^real/);
    expect(await rule(9011)).toMatch(/^port 9011/);
  });
});
