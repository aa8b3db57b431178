import { afterEach, beforeEach, expect, inject, it } from 'vitest';
import { createWorkerRecords } from '../../src/postgres/workers.ts';
import { catalogFile, makeTestBroker, type TestBroker } from '../support/broker.ts';
import { createLineLogger } from '../support/logger.ts';

const size = 3;
const reserveMib = 2_048;
const { logger, lines } = createLineLogger();
let broker: TestBroker;

beforeEach(async () => {
  const offerings = catalogFile.offerings.map((offering) => ({
    ...offering,
    plans: offering.plans.map((plan) => ({ ...plan, pool: plan.name === 'small' ? size : 0 })),
  }));
  broker = await makeTestBroker(inject('postgres'), { catalog: { offerings }, logger });
  await broker.hypervisor.makeTemplate(() => undefined, new AbortController().signal);
});
afterEach(() => broker.stop());

/** @param capacityGib space beyond the reserve; four times as much may be promised. */
const reportDisk = (availableMib: number, capacityGib: number) =>
  createWorkerRecords(broker.database).report({
    name: 'w',
    hypervisor: 'qemu',
    templates: ['small'],
    memoryAvailableMib: 100_000,
    memoryTotalMib: 200_000,
    disk: { availableMib, capacityMib: reserveMib + 1024 * capacityGib, reserveMib },
  });
const parked = async () => (await broker.store.records.poolHosts()).length;

// Fails without the disk in pool-room.ts: the pool was filled again and again.
it('pool: makes no host at the limit of the disk, shrinks host by host, says so once, and is filled again later', async () => {
  const pool = broker.makePoolController();
  const runs = async (count: number) => {
    for (let run = 0; run < count; run += 1) await pool.runOnce();
    return parked();
  };
  await reportDisk(10_000, 4);
  expect(await runs(1)).toBe(size);
  await reportDisk(reserveMib - 1, 4);
  expect(await runs(2)).toBe(size - 2);
  expect(lines.filter(({ message }) => message === 'Disk space is short; the pool shrinks')).toHaveLength(1);
  // Enough to keep what there is, but not for more.
  await reportDisk(reserveMib + 1, 4);
  expect(await runs(2)).toBe(size - 2);
  await reportDisk(10_000, 4);
  expect(await runs(1)).toBe(size);

  // 12 GiB may be promised: two hosts of the pool, and one that a tenant creates.
  await reportDisk(10_000, 3);
  expect(await runs(3)).toBe(size - 1);
  expect(lines.filter(({ message }) => message === 'Disk space is short; the pool shrinks')).toHaveLength(2);
});
