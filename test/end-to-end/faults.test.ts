import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, readdir, rm, stat, statfs, writeFile } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../../src/postgres/server/embedded.ts';
import { processesWith } from '../../tools/lib/residue.ts';
import { type BrokerProcess, makeBrokerProcess, planId, serviceId } from '../support/broker-process.ts';
import { compiled } from '../support/build.ts';
import { eventually } from '../support/eventually.ts';

const run = promisify(execFile);

/** Faults of the node and of Postgres, with the processes that an operator runs and simulated hosts. */
describe('faults', { timeout: 600_000 }, () => {
  const cleanUp: (() => Promise<unknown>)[] = [];

  beforeAll(async () => {
    await compiled();
  }, 180_000);

  afterEach(async () => {
    for (const act of cleanUp.splice(0).reverse()) await act();
  }, 60_000);

  async function broker(settings: Readonly<Record<string, string>> = {}): Promise<BrokerProcess> {
    const made = await makeBrokerProcess(2, { BERTH_HYPERVISOR: 'simulated', ...settings });
    cleanUp.push(() => made.dispose());
    return made;
  }

  /** An external Postgres, which the test can stop. */
  async function ownPostgres(): Promise<{ postgres: EmbeddedPostgres; urlFile: string }> {
    const directory = await mkdtemp('/tmp/berth-pg-');
    await run('chmod', ['755', directory]);
    cleanUp.push(() => rm(directory, { recursive: true, force: true }));
    const postgres = await startEmbeddedPostgres({
      directory: path.join(directory, 'server'),
      socketDirectory: path.join(directory, 'socket'),
    });
    cleanUp.push(() => postgres.stop());
    const urlFile = path.join(directory, 'url');
    await writeFile(urlFile, postgres.connectionString, { mode: 0o600 });
    return { postgres, urlFile };
  }

  const nothingRuns = async ({ stateDirectory }: BrokerProcess) =>
    eventually('no process of it is left', async () => (await processesWith(stateDirectory)).length === 0);

  it.each([
    ['BERTH_PORT', 0],
    ['BERTH_GATEWAY_PORT', 1],
    ['BERTH_MGMT_PORT', 2],
  ])(
    'start: fails if a port is taken, names the setting %s and the remedy, and leaves no process',
    async (setting, index) => {
      const one = await broker();
      const port = one.firstPort + index;
      const taken = net.createServer().listen(port, '0.0.0.0');
      onTestFinished(() => {
        taken.close();
      });
      await new Promise((resolve) => taken.once('listening', resolve));
      await expect(one.start()).rejects.toThrow(
        new RegExp(
          `Port ${port} on [\\d.]+ can't be used.*: stop the process that uses it, or set ${setting} to another port`,
        ),
      );
      await nothingRuns(one);
    },
  );

  it('start: waits for Postgres and prints so', async () => {
    const { postgres, urlFile } = await ownPostgres();
    await postgres.stop();
    const one = await broker({ DATABASE_URL_FILE: urlFile });
    const started = one.start();
    await eventually('the waiting is printed', () => one.output().includes("Postgres can't be reached"), {
      deadlineMs: 60_000,
    });
    expect(one.output()).not.toContain('Berth is ready');
    await postgres.ensureRunning();
    await started;
    expect((await one.create('instance', 'org')).status).toBe(201);
  });

  it('start: fails if Postgres stays unreachable, with the name of the setting and without the password', async () => {
    const one = await broker({ DATABASE_URL: 'postgresql://nobody:hidden@127.0.0.1:1/berth' });
    await expect(one.start()).rejects.toThrow(/waiting for it.*ECONNREFUSED.*DATABASE_URL/s);
    expect(one.output()).not.toContain('hidden');
    await nothingRuns(one);
  });

  it('start: does not wait for a Postgres that rejects the password', async () => {
    const { urlFile } = await ownPostgres();
    const url = (await readFile(urlFile, 'utf8')).replace(/:[^:@/]+@/, ':wrong@');
    await writeFile(urlFile, url);
    const one = await broker({ DATABASE_URL_FILE: urlFile });
    await expect(one.start()).rejects.toThrow(/password authentication failed.*DATABASE_URL/s);
    expect(one.output()).not.toContain('waiting for it');
    await nothingRuns(one);
  });

  // Fails without the deadline in worker.ts: it waited for the delete, and so did the supervisor.
  it('stop: the broker ends although an act on a host hangs, and the next start completes it', async () => {
    const one = await broker({ BERTH_SYNC_WAIT_MS: '0' });
    await one.start();
    expect((await one.create('instance', 'org')).status).toBeLessThan(300);
    const operation = async () =>
      (await one.ask('GET', '/v2/service_instances/instance/last_operation')).body['state'];
    await eventually('it is created', async () => (await operation()) === 'succeeded');
    // Somebody else has the host's lock, and does not release it.
    const [host = ''] = await readdir(path.join(one.stateDirectory, 'simulated', 'hosts'));
    const lock = path.join(one.stateDirectory, 'simulated', 'locks', host);
    await mkdir(path.dirname(lock), { recursive: true });
    const holder = spawn('flock', [
      '--no-fork',
      '--exclusive',
      lock,
      'sh',
      '-c',
      'echo locked; exec sleep 600',
    ]);
    onTestFinished(() => {
      holder.kill('SIGKILL');
    });
    await once(holder.stdout, 'data');
    const removed = await one.ask(
      'DELETE',
      `/v2/service_instances/instance?accepts_incomplete=true&service_id=${serviceId}&plan_id=${planId}`,
    );
    expect(removed.status).toBe(202);
    const { ino } = await stat(lock);
    // proc_locks(5): "->" marks one that waits.
    await eventually('the delete waits for the lock', async () =>
      new RegExp(`-> FLOCK .*:${ino} `).test(await readFile('/proc/locks', 'utf8')),
    );
    await one.interrupt();
    expect(one.output()).toContain('The worker ends although acts on hosts are in progress');
    holder.kill('SIGKILL');
    await rm(lock, { force: true });
    await one.start();
    await eventually('it is deleted', async () => (await operation()) !== 'in progress');
    expect(await operation()).not.toBe('failed');
  });

  it('Postgres: if it stops during creates, this is logged, and they complete once it is back', async () => {
    const { postgres, urlFile } = await ownPostgres();
    const one = await broker({ DATABASE_URL_FILE: urlFile, BERTH_SYNC_WAIT_MS: '0' });
    await one.start();
    const names = Array.from({ length: 6 }, (_, index) => `instance-${index}`);
    const answers = await Promise.all(
      names.map((name) => one.ask('PUT', one.createRoute(name), one.createBody('org'))),
    );
    expect(answers.map(({ status }) => status)).toEqual(names.map(() => 202));
    await postgres.stop();
    const refused = await one.ask('PUT', one.createRoute('later'), one.createBody('org'));
    expect(refused.status).toBe(503);
    expect(refused.body['description']).toMatch(/database/i);
    await eventually('the processes have logged it', () =>
      one.output().includes('The connection to Postgres was lost'),
    );
    await postgres.ensureRunning();
    for (const name of names) {
      await eventually(
        `${name} is created`,
        async () => {
          const { status, body } = await one.ask('GET', `/v2/service_instances/${name}/last_operation`);
          if (body['state'] === 'failed') throw new Error(String(body['description']));
          return status === 200 && body['state'] === 'succeeded';
        },
        { deadlineMs: 60_000, everyMs: 200 },
      );
    }
    expect((await one.bind('instance-0', 'b')).status).toBe(201);
    for (const name of names) expect((await one.remove(name)).status).toBe(200);
  });

  it.skipIf(process.getuid?.() !== 0)(
    'full disk: a create fails with the reason and leaves nothing; the next one succeeds once there is space',
    async () => {
      const { urlFile } = await ownPostgres();
      const one = await broker({ DATABASE_URL_FILE: urlFile });
      const hosts = path.join(one.stateDirectory, 'simulated', 'hosts');
      await mkdir(hosts, { recursive: true });
      await run('mount', ['-t', 'tmpfs', '-o', 'size=64k,mode=755', 'berth-test', hosts]);
      cleanUp.push(() => run('umount', ['--lazy', hosts]));
      await one.start();
      await fill(path.join(hosts, '.filler'));
      const failed = await one.create('instance', 'org');
      expect(failed.body).toMatchObject({ state: 'failed' });
      expect(failed.body['description']).toMatch(/no space left/i);
      expect((await readdir(hosts)).filter((name) => name !== '.filler')).toEqual([]);
      expect((await one.remove('instance')).status).toBe(200);
      await rm(path.join(hosts, '.filler'));
      expect((await one.create('another', 'org')).status).toBe(201);
    },
  );
});

/** Fills the file system of `file`. */
async function fill(file: string): Promise<void> {
  const { bavail, bsize } = await statfs(path.dirname(file));
  await writeFile(file, Buffer.alloc(bavail * bsize));
}
