import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, expect, inject, it } from 'vitest';
import { createDiskGuard } from '../../src/controllers/disk-guard.ts';
import { createHaltedHostsController } from '../../src/controllers/halted-hosts.ts';
import { createPowerSwitch } from '../../src/controllers/power-switch.ts';
import type { Halt } from '../../src/core/hypervisor/run-state.ts';
import { toHostSpec } from '../../src/core/model/host-spec.ts';
import type { Records } from '../../src/core/ports/store.ts';
import { instance, makeTestBroker, provisionBody, type TestBroker } from '../support/broker.ts';
import { eventually } from '../support/eventually.ts';
import { silentLogger } from '../support/logger.ts';

const mib = 1024 ** 2;
const gib = 1024 ** 3;
const reserveMib = 1_024;

let broker: TestBroker;
let availableMib: number;
const hostBytes = new Map<string, number>();
const halts = new Map<string, Halt>();

beforeEach(async () => {
  availableMib = 10 * reserveMib;
  hostBytes.clear();
  halts.clear();
  broker = await makeTestBroker(inject('postgres'), {
    faults: {
      before: (method, hostId) => {
        // As QEMU does, unless the cause is still there.
        if (method === 'resume' && halts.get(hostId) === 'io-error') halts.delete(hostId);
      },
      haltOf: (hostId) => halts.get(hostId),
      diskSpace: () => ({ availableBytes: availableMib * mib, hostBytes: new Map(hostBytes) }),
    },
  });
  broker.startWorker();
});
afterEach(() => broker.stop());

async function makeHost(org: string): Promise<string> {
  const before = new Set((await broker.store.records.livingHosts()).map(({ id }) => id));
  const made = await broker
    .ask('put', `${instance(randomUUID())}?accepts_incomplete=true`)
    .send({ ...provisionBody, organization_guid: org, context: {} });
  expect(made.status).toBe(201);
  const host = (await broker.store.records.livingHosts()).find(({ id }) => !before.has(id));
  hostBytes.set(host?.id ?? '', 100 * mib);
  return host?.id ?? '';
}

function makeWorker(guarded: Pick<Records, 'livingHosts'> = broker.store.records) {
  const { store, hypervisor } = broker;
  const deps = { records: store.records, hypervisor, logger: silentLogger };
  const guard = createDiskGuard({ ...deps, records: guarded, rules: { reserveMib, overcommit: 4 } });
  const power = createPowerSwitch({ ...deps, restart: () => Promise.resolve() });
  const halted = createHaltedHostsController({ ...deps, power, guard });
  return { guard, halted };
}
const write = (host: string, bytes: number) => hostBytes.set(host, (hostBytes.get(host) ?? 0) + bytes);
const recorded = async (host: string) => (await broker.store.records.livingHost(host))?.halted;
const haltOf = (host: string) => broker.hypervisor.haltOf(host);

it('disk guard: below the reserve halts the writer of the tenant beyond its share, and continues it once there is room', async () => {
  // Fails without the guard: none was halted. Fails without the share: `modest`, which writes more, was halted.
  const [greedy, modest, quiet] = [await makeHost('a'), await makeHost('b'), await makeHost('c')];
  const { guard, halted } = makeWorker();
  hostBytes.set(greedy, 5 * gib);
  await guard.runOnce();
  write(greedy, 100 * mib);
  write(modest, 200 * mib);
  await guard.runOnce();
  expect(await haltOf(greedy)).toBeUndefined();

  availableMib = reserveMib - 1;
  await guard.runOnce();
  expect(await haltOf(greedy)).toBe('paused');
  expect(await haltOf(modest)).toBeUndefined();
  await halted.runOnce();
  expect(await recorded(greedy)).toBe('disk-full');

  // More than the reserve, but not by enough: it stays.
  availableMib = reserveMib + 1;
  await halted.runOnce();
  expect(await haltOf(greedy)).toBe('paused');
  availableMib = 2 * reserveMib;
  await halted.runOnce();
  await eventually('it runs and is recorded as running', async () => {
    return (await haltOf(greedy)) === undefined && (await recorded(greedy)) === undefined;
  });

  // Nearly nothing is left: all that write are halted, and no other.
  write(greedy, 50 * mib);
  write(modest, 50 * mib);
  availableMib = reserveMib / 4;
  await guard.runOnce();
  expect([await haltOf(greedy), await haltOf(modest), await haltOf(quiet)]).toEqual([
    'paused',
    'paused',
    undefined,
  ]);
});

it('disk guard: halts a writer that Postgres does not know, also if Postgres does not answer', async () => {
  // Fails without a deadline for reading the rows, and if only hosts with a row are halted.
  const forgotten = await makeHost('a');
  const { guard } = makeWorker({ livingHosts: () => new Promise<never>(() => undefined) });
  await guard.runOnce();
  write(forgotten, 50 * mib);
  availableMib = reserveMib - 1;
  await guard.runOnce();
  expect(await haltOf(forgotten)).toBe('paused');
});

it('disk guard: halts a writer again that was continued although the disk is full', async () => {
  // Fails if hosts that were halted once are left out: it wrote on.
  const [first, second] = [await makeHost('a'), await makeHost('b')];
  const { guard } = makeWorker();
  await guard.runOnce();
  write(first, 200 * mib);
  write(second, 100 * mib);
  availableMib = reserveMib - 1;
  await guard.runOnce();
  expect([await haltOf(first), await haltOf(second)]).toEqual(['paused', undefined]);
  await guard.runOnce();
  expect(await haltOf(second)).toBe('paused');

  const host = await broker.store.records.livingHost(first);
  if (host === undefined) throw new Error('the host has no row');
  await broker.hypervisor.resume(toHostSpec(host));
  expect(await haltOf(first)).toBeUndefined();
  await guard.runOnce();
  expect(await haltOf(first)).toBe('paused');
});

it('halted hosts: io-error is recorded, and continued once there is room; an internal error ends the VM, which restarts', async () => {
  // Fails without the controller: the host stayed stopped, and nobody saw it.
  const [full, broken] = [await makeHost('a'), await makeHost('b')];
  const { halted } = makeWorker();
  availableMib = 1;
  halts.set(full, 'io-error');
  halts.set(broken, 'internal-error');
  await halted.runOnce();
  expect(await recorded(full)).toBe('io-error');
  expect(await haltOf(full)).toBe('io-error');
  await eventually('the broken VM is ended', async () => {
    const seen = (await broker.hypervisor.list()).find(({ hostId }) => hostId === broken);
    return seen?.state === 'stopped';
  });
  halts.delete(broken);

  availableMib = 10 * reserveMib;
  await halted.runOnce();
  await eventually('the full host continues', async () => (await recorded(full)) === undefined);
  expect(await haltOf(full)).toBeUndefined();
});
