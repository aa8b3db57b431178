import { expect, inject, it, onTestFinished } from 'vitest';
import type { GatewayCounts } from '../../src/core/ports/gateway-counts.ts';
import { startCountReports } from '../../src/gateway/count-reports.ts';
import { createCounters } from '../../src/gateway/counters.ts';
import { metricsText } from '../../src/http/mgmt/metrics.ts';
import { openDatabase } from '../../src/postgres/database.ts';
import { createGatewayCounts } from '../../src/postgres/gateway-counts.ts';
import { createOverview } from '../../src/postgres/overview.ts';
import { makeTestBroker } from '../support/broker.ts';
import { eventually } from '../support/eventually.ts';
import { silentLogger } from '../support/logger.ts';

it('metrics: have what all gateways counted, with the reasons, and those that have ended', async () => {
  const broker = await makeTestBroker(inject('postgres'));
  onTestFinished(() => broker.stop());
  const [ofGateway, ofApi] = [openDatabase(broker.urls.gateway), openDatabase(broker.urls.api)];
  onTestFinished(async () => {
    await ofGateway.destroy();
    await ofApi.destroy();
  });
  const counts = createGatewayCounts(ofGateway);
  let fails = false;
  const unreliable: GatewayCounts = {
    add: (more) => (fails ? Promise.reject(new Error('Postgres is away')) : counts.add(more)),
  };
  const start = () => {
    const counters = createCounters();
    const reports = startCountReports({ counters, counts: unreliable, everyMs: 20, logger: silentLogger });
    return { counters, reports };
  };
  const metrics = async () => (await metricsText(await createOverview(ofApi).counts(), [], [])).text;

  const [one, two] = [start(), start()];
  const zero = 'berth_gateway_clients_total{result="refused",reason="too-many-of-tenant"} 0\n';
  await eventually('a reason that has not occurred is 0', async () => (await metrics()).includes(zero));
  fails = true;
  for (const { counters } of [one, two]) {
    counters.refused['too-many-of-tenant'] += 2;
    counters.dropped['address-full'] += 3;
    counters.cut.invalidated += 4;
    counters.bytesToClients += 5e9;
  }
  await one.reports.stop();
  fails = false;
  // Counted after the failure: the report at the stop has both.
  two.counters.failedHandshakes += 1;
  await two.reports.stop();
  const text = await metrics();
  expect(text).toContain('{result="refused",reason="too-many-of-tenant"} 2\n');
  expect(text).toContain('{result="dropped",reason="address-full"} 3\n');
  expect(text).toContain('{result="failed",reason=""} 1\n');
  expect(text).toContain('berth_gateway_streams_cut_total{reason="invalidated"} 4\n');
  expect(text).toContain('berth_gateway_bytes_total{direction="to-clients"} 5000000000\n');

  const three = start();
  three.counters.cut.invalidated += 1;
  await three.reports.stop();
  expect(await metrics()).toContain('berth_gateway_streams_cut_total{reason="invalidated"} 5\n');
});
