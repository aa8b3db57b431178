import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { appendFile, mkdtemp, rm, rmdir, stat, statfs } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { createDiskGuard } from '../../src/controllers/disk-guard.ts';
import { createHaltedHostsController } from '../../src/controllers/halted-hosts.ts';
import { createPowerSwitch } from '../../src/controllers/power-switch.ts';
import { hints, instance, makeTestBroker, provisionBody } from '../support/broker.ts';
import { eventually } from '../support/eventually.ts';
import { createLineLogger } from '../support/logger.ts';
import { query, startTestServer } from '../support/postgres.ts';

const execute = promisify(execFile);
const mib = 1024 ** 2;
const reserveMib = 100;
/** In each round of the guard, as with the usual settings: 200 MiB/s, twice as much in a burst, of a reserve of 2 GiB. */
const chunk = Buffer.alloc((reserveMib * mib) / 5, 'x');

// Fails without the guard: Postgres could not begin a file of its log and ended, so the instance could not be deleted.
it.skipIf(process.getuid?.() !== 0)(
  'full disk: hosts that fill the file system of Postgres are halted first, a delete makes room, and the others continue',
  async () => {
    const directory = await mkdtemp('/tmp/berth-pg-');
    const cleanUp = [() => rmdir(directory)];
    try {
      await execute('mount', ['-t', 'tmpfs', '-o', 'size=600m,mode=755', 'tmpfs', directory]);
      cleanUp.push(() => execute('umount', ['--lazy', directory]).then(() => undefined));
      const server = await startTestServer(directory);
      cleanUp.push(() => server.stop());
      const diskOf = (host: string) => path.join(directory, host);
      const availableBytes = async () => {
        const { bavail, bsize } = await statfs(directory);
        return bavail * bsize;
      };
      const hostIds = new Set<string>();
      const sizeOf = (host: string) =>
        stat(diskOf(host)).then(
          ({ size }) => size,
          () => 0,
        );
      const broker = await makeTestBroker(server.connectionString, {
        faults: {
          before: async (method, host) => {
            if (method === 'destroy') await rm(diskOf(host), { force: true });
          },
          diskSpace: async () => {
            const sizes = [...hostIds].map(async (host) => [host, await sizeOf(host)] as const);
            return { availableBytes: await availableBytes(), hostBytes: new Map(await Promise.all(sizes)) };
          },
        },
      });
      cleanUp.push(() => broker.stop());
      broker.startWorker();
      const { hypervisor } = broker;
      const { records } = broker.store;
      const [first, second] = [randomUUID(), randomUUID()];
      for (const [id, org] of [
        [first, 'a'],
        [second, 'b'],
      ] as const) {
        const body = { ...provisionBody, organization_guid: org, context: {} };
        expect((await broker.ask('put', `${instance(id)}?accepts_incomplete=true`).send(body)).status).toBe(
          201,
        );
      }
      for (const { id } of await records.livingHosts()) hostIds.add(id);

      const { logger, lines } = createLineLogger();
      const deps = { records, hypervisor, logger };
      const guard = createDiskGuard({ ...deps, rules: { reserveMib, overcommit: 4 } });
      const power = createPowerSwitch({ ...deps, restart: () => Promise.resolve() });
      const halted = createHaltedHostsController({ ...deps, power, guard });
      const writing = async () => {
        const states = await Promise.all(
          [...hostIds].map(async (id) => [id, await hypervisor.haltOf(id)] as const),
        );
        return states.filter(([, halt]) => halt === undefined).map(([id]) => id);
      };
      await guard.runOnce();
      for (let round = 0; round < 60 && (await writing()).length > 0; round += 1) {
        for (const host of await writing()) await appendFile(diskOf(host), chunk).catch(() => undefined);
        await guard.runOnce();
      }
      expect(await availableBytes()).toBeGreaterThan((reserveMib * mib) / 4);
      expect(await writing()).toEqual([]);
      expect(lines.filter(({ details }) => details['event'] === 'host.halted')).toHaveLength(2);

      // Postgres begins new files of its log, as it does after some minutes of work.
      for (let count = 0; count < 2; count += 1)
        await query(server.connectionString, 'SELECT pg_switch_wal()');
      await halted.runOnce();
      expect((await records.livingHosts()).map((host) => host.halted)).toEqual(['disk-full', 'disk-full']);
      const removed = await broker.ask('delete', `${instance(first)}?accepts_incomplete=true&${hints}`);
      expect(removed.status).toBe(200);
      await halted.runOnce();
      await eventually('the other host continues', async () => {
        const left = await records.livingHosts();
        return (
          left.length === 1 && left[0]?.halted === undefined && (await writing()).includes(left[0]?.id ?? '')
        );
      });
    } finally {
      // A server that has ended can't be stopped, and the file system has to go nevertheless.
      for (const act of cleanUp.reverse()) await act().catch(() => undefined);
    }
  },
);
