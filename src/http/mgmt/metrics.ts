import { Gauge, Registry } from 'prom-client';
import type { Counts } from '../../core/ports/overview.ts';

/** The counts in the Prometheus text format. All come from Postgres, so one api tells of every role. */
export async function metricsText(counts: Counts): Promise<{ contentType: string; text: string }> {
  const registry = new Registry();
  const gauge = (name: string, help: string, labelNames: string[] = []) =>
    new Gauge({ name, help, labelNames, registers: [registry] });

  const instances = gauge('berth_instances', 'Service instances by state', ['state']);
  for (const { state, count } of counts.instances) instances.set({ state }, count);
  const hosts = gauge('berth_hosts', 'Hosts that have not been destroyed', ['state', 'plan']);
  for (const { state, plan, count } of counts.hosts) hosts.set({ state, plan }, count);
  const made = gauge(
    'berth_hosts_made',
    'Hosts ever made, by whether they came out of the pool, the template or a cold boot',
    ['from', 'plan'],
  );
  for (const { from, plan, count } of counts.made) made.set({ from, plan }, count);
  const bindings = gauge('berth_bindings', 'Service bindings by state', ['state']);
  for (const { state, count } of counts.bindings) bindings.set({ state }, count);
  const operations = gauge('berth_operations', 'Operations on record by kind and state', ['kind', 'state']);
  const seconds = gauge('berth_operations_seconds', 'Time that finished operations took together', [
    'kind',
    'state',
  ]);
  for (const { kind, state, count, seconds: sum } of counts.operations) {
    operations.set({ kind, state }, count);
    seconds.set({ kind, state }, sum);
  }
  const expiring = gauge('berth_instances_expiring', 'Instances whose term ends within so long', ['within']);
  for (const { within, count } of counts.expiring) expiring.set({ within }, count);
  const usage = gauge('berth_usage', 'What hosts use of what quotas limit: in MiB, GiB, or a number', [
    'resource',
  ]);
  for (const [resource, amount] of Object.entries(counts.usage)) usage.set({ resource }, amount);
  const integrity = gauge(
    'berth_hosts_checked',
    'Hosts that run or wait in the pool, by what their last check found',
    ['result'],
  );
  const age = gauge('berth_hosts_checked_age_seconds', 'Age of the oldest last check', ['result']);
  for (const { result, count, oldestSeconds } of counts.integrity) {
    integrity.set({ result }, count);
    age.set({ result }, oldestSeconds);
  }
  const ends = gauge('berth_authority_ends_timestamp_seconds', 'When the certificate of an authority ends', [
    'name',
    'state',
  ]);
  // Of several that retire, the first to end.
  for (const { name, state, endsAt } of [...counts.authorities].sort((a, b) => +b.endsAt - +a.endsAt)) {
    ends.set({ name, state }, Math.floor(endsAt.getTime() / 1000));
  }
  gauge(
    'berth_hosts_wake_refused',
    'Hosts that sleep, and whose last wake was refused for want of memory',
  ).set(counts.wakesRefused);
  gauge('berth_free_slots', 'Hosts that can still be made before slots and ports run out').set(
    counts.freeSlots,
  );
  gauge('berth_gateways', 'Gateways that hold a lease').set(counts.gateways.live);
  gauge('berth_gateway_connections', 'Connections that are open through all gateways').set(
    counts.gateways.connections,
  );
  const workers = gauge('berth_workers', 'Workers by whether they have been heard of lately', [
    'alive',
    'hypervisor',
  ]);
  const memory = gauge('berth_worker_memory_available_mib', "What the worker's machine can still take", [
    'worker',
  ]);
  for (const { name, memoryAvailableMib } of counts.workers) {
    if (memoryAvailableMib !== null) memory.set({ worker: name }, memoryAvailableMib);
  }
  for (const { alive, hypervisor } of counts.workers) workers.inc({ alive: String(alive), hypervisor });
  return { contentType: registry.contentType, text: await registry.metrics() };
}
