import { Counter, Gauge, Registry } from 'prom-client';
import type { NodeRules } from '../../core/ports/node-rules.ts';
import type { PoolPlan } from '../../core/pool-state.ts';
import type { Counts } from '../../core/ports/overview.ts';

/** The counts in the Prometheus text format. All come from Postgres, so any api reports on every process. */
export async function metricsText(
  counts: Counts,
  nodeRules: readonly NodeRules[],
  pool: readonly PoolPlan[],
): Promise<{ contentType: string; text: string }> {
  const registry = new Registry();
  const gauge = (name: string, help: string, labelNames: string[] = []) =>
    new Gauge({ name, help, labelNames, registers: [registry] });

  const instances = gauge('berth_instances', 'Service instances by state: deleted ones so far', ['state']);
  for (const { state, count } of counts.instances) instances.set({ state }, count);
  const hosts = gauge('berth_hosts', 'Hosts that have not been destroyed', ['state', 'plan']);
  for (const { state, plan, count } of counts.hosts) hosts.set({ state, plan }, count);
  const wanted = gauge('berth_pool_hosts_wanted', 'Hosts that the pool should have: by size, as a plan', [
    'plan',
  ]);
  for (const one of pool) wanted.set({ plan: one.plan }, one.wanted);
  const created = gauge('berth_hosts_made', 'Hosts created so far, by origin: pool, template or cold boot', [
    'from',
    'plan',
  ]);
  for (const { from, plan, count } of counts.made) created.set({ from, plan }, count);
  const bindings = gauge('berth_bindings', 'Service bindings by state: revoked ones so far', ['state']);
  for (const { state, count } of counts.bindings) bindings.set({ state }, count);
  const operations = gauge(
    'berth_operations',
    'Operations by kind and state: in progress now, ended so far',
    ['kind', 'state'],
  );
  const seconds = gauge('berth_operations_seconds', 'Total time of finished operations', ['kind', 'state']);
  for (const { kind, state, count, seconds: sum } of counts.operations) {
    operations.set({ kind, state }, count);
    seconds.set({ kind, state }, sum);
  }
  const expiring = gauge('berth_instances_expiring', 'Instances that expire within a time', ['within']);
  for (const { within, count } of counts.expiring) expiring.set({ within }, count);
  const usage = gauge(
    'berth_usage',
    'What hosts use of the resources that quotas limit: MiB, GiB or a number',
    ['resource'],
  );
  for (const [resource, amount] of Object.entries(counts.usage)) usage.set({ resource }, amount);
  const integrity = gauge(
    'berth_hosts_checked',
    'Running and parked hosts by the result of their last integrity check',
    ['result'],
  );
  const age = gauge('berth_hosts_checked_age_seconds', 'Age of the oldest of the last integrity checks', [
    'result',
  ]);
  for (const { result, count, oldestSeconds } of counts.integrity) {
    integrity.set({ result }, count);
    age.set({ result }, oldestSeconds);
  }
  const caExpiry = gauge('berth_ca_expiry_timestamp_seconds', 'When the certificate of a CA expires', [
    'name',
    'state',
  ]);
  // Of several retiring CAs, the first to expire wins: it is set last.
  for (const { name, state, expiresAt } of [...counts.certificateAuthorities].sort(
    (a, b) => +b.expiresAt - +a.expiresAt,
  )) {
    caExpiry.set({ name, state }, Math.floor(expiresAt.getTime() / 1000));
  }
  gauge(
    'berth_hosts_wake_refused',
    'Hosts that are asleep and whose last wake was refused because the node lacked memory',
  ).set(counts.wakesRefused);
  gauge('berth_hosts_restart_paused', 'Hosts that keep ending and wait for their next restart').set(
    counts.restartsPaused,
  );
  const differing = gauge('berth_hosts_differing', 'Hosts that differ from their records in Postgres', [
    'kind',
  ]);
  for (const { kind, count } of counts.differences) differing.set({ kind }, count);
  const repairs = new Counter({
    name: 'berth_node_rules_repairs_total',
    help: 'How often network rules of the node were missing or altered, and were put back',
    labelNames: ['worker'],
    registers: [registry],
  });
  for (const { worker, repairs: count } of nodeRules) repairs.inc({ worker }, count);
  gauge('berth_free_slots', 'Hosts that can still be created before slots run out').set(counts.freeSlots);
  gauge('berth_gateways', 'Gateways with a lease').set(counts.gateways.live);
  gauge('berth_gateway_connections', 'Open connections of all gateways').set(counts.gateways.connections);
  addGatewayCounts(registry, counts.gatewayCounts);
  const workers = gauge('berth_workers', 'Workers by whether they have reported recently', [
    'alive',
    'hypervisor',
  ]);
  const memory = gauge('berth_worker_memory_available_mib', "Available memory of the worker's node", [
    'worker',
  ]);
  const disk = gauge(
    'berth_worker_disk_mib',
    "Disk space of the worker's node for hosts: available, or in all",
    ['worker', 'kind'],
  );
  for (const { name, diskAvailableMib, diskCapacityMib } of counts.workers) {
    if (diskAvailableMib !== null) disk.set({ worker: name, kind: 'available' }, diskAvailableMib);
    if (diskCapacityMib !== null) disk.set({ worker: name, kind: 'capacity' }, diskCapacityMib);
  }
  const halted = gauge('berth_hosts_halted', 'Running hosts whose VM is stopped, by reason', ['reason']);
  for (const { reason, count } of counts.halted) halted.set({ reason }, count);
  for (const { name, memoryAvailableMib } of counts.workers) {
    if (memoryAvailableMib !== null) memory.set({ worker: name }, memoryAvailableMib);
  }
  const templates = gauge(
    'berth_worker_templates',
    'Workers that restore hosts of a plan from the template',
    ['plan'],
  );
  for (const { alive, templates: usable } of counts.workers) {
    if (alive) for (const plan of usable) templates.inc({ plan });
  }
  for (const { alive, hypervisor } of counts.workers) workers.inc({ alive: String(alive), hypervisor });
  return { contentType: registry.contentType, text: await registry.metrics() };
}

/** Totals of all gateways, of those that have ended as well. */
function addGatewayCounts(registry: Registry, counts: Counts['gatewayCounts']): void {
  const counter = (name: string, help: string, labelNames: string[]) =>
    new Counter({ name, help, labelNames, registers: [registry] });
  const clients = counter(
    'berth_gateway_clients_total',
    'Clients of gateways: admitted, refused with an answer, dropped without one, or whose handshake failed',
    ['result', 'reason'],
  );
  const cut = counter('berth_gateway_streams_cut_total', 'Open connections to hosts that gateways ended', [
    'reason',
  ]);
  const bytes = counter('berth_gateway_bytes_total', 'Bytes that gateways passed on', ['direction']);
  for (const { event, reason, count } of counts) {
    if (event === 'cut') cut.inc({ reason }, count);
    else if (event === 'bytes') bytes.inc({ direction: reason }, count);
    else clients.inc({ result: event, reason }, count);
  }
}
