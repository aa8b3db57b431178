import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, expect, inject, it, onTestFinished } from 'vitest';
import { type LeaseThreadData, startLeaseRenewal } from '../../src/postgres/lease-renewal.ts';
import { createLiveBindingsSource } from '../../src/postgres/live-bindings.ts';
import { makeTestBroker, type TestBroker } from '../support/broker.ts';
import { compiled } from '../support/build.ts';
import { eventually } from '../support/eventually.ts';
import { silentLogger } from '../support/logger.ts';
import { type BreakableProxy, createBreakableProxy } from './support/breakable-proxy.ts';

let broker: TestBroker;
let file: URL;

beforeAll(async () => {
  broker = await makeTestBroker(inject('postgres'));
  file = pathToFileURL(path.join(await compiled(), 'postgres', 'lease-thread.js'));
}, 120_000);

afterAll(() => broker.stop());

const forever = 3_600_000;

/** A gateway's view of Postgres, whose lease a thread renews. */
async function openSource(change: Partial<LeaseThreadData> = {}) {
  const connectionString = broker.urls.gateway;
  const renewal = await startLeaseRenewal({
    ...{ file, connectionString, renewEveryMs: 50, timeoutMs: 2_000, longestStallMs: forever },
    ...{ logger: silentLogger, ...change },
  });
  onTestFinished(() => renewal.stop());
  const source = createLiveBindingsSource({ connectionString, connections: () => 0, renewal });
  await source.open({ changed: () => undefined, lost: () => undefined });
  onTestFinished(() => source.close());
  return source;
}

const leaseRows = () => broker.database('gateways').whereRaw('lease_until > clock_timestamp()');

// Fails without the thread: the lease has run out when the gateway's thread works again.
it('lease thread: renews the lease while the gateway is busy for longer than it', async () => {
  const [source, leaseMs] = [await openSource(), 3_000];
  const sinceRenewal = await source.takeLease(leaseMs);
  await eventually('the thread renews it', () => sinceRenewal() < leaseMs);
  // The event loop is busy: nothing of this thread runs.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1.2 * leaseMs);
  expect(sinceRenewal()).toBeLessThan(leaseMs);
  expect(await leaseRows()).toHaveLength(1);
  await source.renewLease(leaseMs);
  await source.releaseLease();
});

// Fails without `longestStallMs`: a gateway that hangs would delay each unbind until its platform's timeout.
it('lease thread: lets the lease end once the gateway has not renewed it itself for long enough', async () => {
  const source = await openSource({ longestStallMs: 300 });
  await source.takeLease(500);
  await eventually('the lease has ended', async () => (await leaseRows()).length === 0);
  await expect(source.renewLease(500)).rejects.toThrow('the lease has run out in Postgres');
  await source.takeLease(forever);
  expect(await leaseRows()).toHaveLength(1);
  await source.releaseLease();
});

// Fails without `lease_until > clock_timestamp()` in the thread's statement: a process that was stopped for longer than
// its lease would serve bindings whose unbind was answered meanwhile.
it('lease thread: never revives a lease that has ended', async () => {
  const source = await openSource();
  const sinceRenewal = await source.takeLease(forever);
  await eventually('the thread renews it', () => sinceRenewal() < forever);
  await broker.database('gateways').update({ lease_until: new Date(0) });
  const renewals = 10 * 50;
  await eventually('the thread has not renewed it for many rounds', () => sinceRenewal() > renewals);
  expect(await leaseRows()).toEqual([]);
  await source.releaseLease();
});

it('lease thread: connects again if its connection hangs, or Postgres is away for a while', async () => {
  const proxy: BreakableProxy = await createBreakableProxy(broker.urls.gateway);
  onTestFinished(() => {
    proxy.close();
  });
  const source = await openSource({ connectionString: proxy.url, timeoutMs: 300 });
  const sinceRenewal = await source.takeLease(forever);
  await eventually('the thread renews it', () => sinceRenewal() < forever);
  for (const breakIt of [
    () => {
      proxy.silence();
    },
    () => {
      proxy.cut();
    },
  ]) {
    breakIt();
    const brokenAt = performance.now();
    await eventually('it is renewed again', () => sinceRenewal() < performance.now() - brokenAt - 50);
  }
  await source.releaseLease();
});

it('lease thread: a program that fails, or never connects, fails the start', async () => {
  const deps = { renewEveryMs: 50, timeoutMs: 300, longestStallMs: forever, logger: silentLogger };
  const connectionString = broker.urls.gateway;
  const broken = new URL('data:text/javascript,throw new Error("broken program")');
  await expect(startLeaseRenewal({ ...deps, file: broken, connectionString })).rejects.toThrow(
    'broken program',
  );
});
