import { cp, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, inject, it } from 'vitest';
import type { Knex } from 'knex';
import { readSettings } from '../../src/config/settings.ts';
import { openDatabase } from '../../src/postgres/database.ts';
import { createLeadership } from '../../src/postgres/records/leadership.ts';
import { createHostsLease } from '../../src/processes/hosts-lease.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';

let testDatabase: TestDatabase;
let database: Knex;
let root: string;

beforeAll(async () => {
  testDatabase = await createTestDatabase(inject('postgres'));
  database = openDatabase((await testDatabase.roleUrls()).worker, { maxConnections: 2 });
});
afterAll(async () => {
  await database.destroy();
  await testDatabase.drop();
});
beforeEach(async () => {
  root = await mkdtemp(path.join(tmpdir(), 'berth-lease-'));
  return () => rm(root, { recursive: true });
});

const leaseOf = (stateDirectory: string, hypervisor = 'simulated') =>
  createHostsLease(
    createLeadership(database),
    readSettings({ BERTH_STATE_DIR: stateDirectory, BERTH_HYPERVISOR: hypervisor }),
  );

// Fails if the lease is held by a file or a name in the directory, which a copy has too.
it('lease on the hosts: workers of one state directory share it; a copy and another hypervisor do not get it', async () => {
  const [original, copy] = [path.join(root, 'original'), path.join(root, 'copy')];
  await mkdir(original);
  await cp(original, copy, { recursive: true });
  const lease = await leaseOf(original);
  await lease.acquire();
  expect(await (await leaseOf(original)).renew()).toBe(true);
  expect(await (await leaseOf(copy)).renew()).toBe(false);
  expect(await (await leaseOf(original, 'qemu')).renew()).toBe(false);

  // A copy that waits while the original's workers have ended gets it, and the original's then learn of it.
  await database('leadership_leases')
    .where({ name: 'hosts' })
    .update({ lease_until: new Date(0) });
  await (await leaseOf(copy)).acquire();
  expect(await lease.renew()).toBe(false);
});
