/** The database roles of Berth's processes; none of them owns the tables. */
export const databaseRoles = ['api', 'gateway', 'worker'] as const;
export type DatabaseRole = (typeof databaseRoles)[number];

/** A right on a table in the syntax of GRANT, such as `SELECT` or `UPDATE (state, revoked_at)`. */
type Right = string;

/** The rights of each role on a table; a role that is not listed has none. */
export type TableGrants = Readonly<Partial<Record<DatabaseRole, readonly Right[]>>>;

/** All columns but those that the database fills in: when a row was written, and by which role. */
const auditRow =
  'INSERT (actor, platform, identity, action, instance_id, binding_id, remote_address, request_id, status, outcome, error, detail)';

/**
 * All rights of each role on each table; every start grants exactly these (database-roles.ts). To let a process read or
 * write another table or column, add it here; a test fails for a table without a line. Row locks (`FOR UPDATE`,
 * `FOR SHARE`) need UPDATE on some column.
 *
 * - Only the api reads sealed values. The worker may clear a binding's credentials, but not read them.
 * - Bindings, instances, hosts and CAs are never deleted, so no serial and no id is used twice.
 * - The audit trail is append-only.
 * - No role can change an instance's tenant or a binding's certificate. The api sets a host's tenant once; a trigger
 *   enforces that it never changes.
 */
export const grants: Readonly<Record<string, TableGrants>> = {
  installation: {
    api: ['SELECT'],
    gateway: ['SELECT'],
    worker: ['SELECT', 'UPDATE (history, mark, image_version)'],
  },
  platforms: { api: ['SELECT', 'INSERT', 'UPDATE (name)'], worker: ['SELECT'] },
  platform_passwords: { api: ['SELECT', 'INSERT', 'DELETE'] },
  tenants: { api: ['SELECT', 'INSERT'], worker: ['SELECT'] },
  instances: {
    api: [
      'SELECT',
      'INSERT',
      'UPDATE (plan_id, parameters, context, state, expires_at, updated_at, id_released_at)',
    ],
    worker: ['SELECT', 'UPDATE (plan_id, parameters, state, expires_at, updated_at)'],
  },
  early_deletes: { api: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'] },
  slots: {
    api: ['SELECT', 'INSERT', 'UPDATE (host_id)'],
    worker: ['SELECT', 'UPDATE (host_id, rests_until, former_tenant_id)'],
  },
  hosts: {
    api: [
      'SELECT',
      'INSERT',
      // A host gets its owner's plan when it leaves the pool.
      'UPDATE (instance_id, tenant_id, state, plan_name, vcpus, memory_mib, disk_gib, ports, egress, registries, idle, updated_at)',
      'UPDATE (reserved_plan, reserved_vcpus, reserved_memory_mib, reserved_disk_gib, reserved_ports, port_block)',
    ],
    gateway: ['SELECT (id, instance_id, state, engine_host, engine_port, power, wake_refused_at)'],
    worker: [
      'SELECT',
      'INSERT',
      'UPDATE (plan_name, vcpus, memory_mib, disk_gib, ports, egress, idle, registries, image_version, can_grow)',
      'UPDATE (halted, state, started_from, first_started_from, power, power_since, wake_refused_at, engine_host, engine_port, quarantined_at, problem, memory_lost_at, updated_at)',
    ],
  },
  host_differences: {
    api: ['SELECT', 'UPDATE (removal_requested_at, failure)', 'DELETE'],
    worker: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'],
  },
  host_checks: {
    api: [
      'SELECT',
      'INSERT (host_id, requested_at, release_requested_at)',
      'UPDATE (requested_at, release_requested_at)',
    ],
    worker: [
      'SELECT',
      'INSERT (host_id, checked_at, drift, failed_at, failure)',
      'UPDATE (checked_at, drift, failed_at, failure)',
    ],
  },
  host_restarts: { api: ['SELECT'], worker: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'] },
  power_requests: {
    api: ['SELECT', 'INSERT', 'UPDATE'],
    gateway: ['SELECT', 'INSERT', 'UPDATE'],
    worker: ['SELECT', 'UPDATE', 'DELETE'],
  },
  leadership_leases: { worker: ['SELECT', 'INSERT', 'UPDATE'] },
  bindings: {
    api: ['SELECT', 'INSERT', 'UPDATE (state, sealed_credentials, revoked_at, settled_at, id_released_at)'],
    gateway: ['SELECT (id, instance_id, tenant_id, serial, state, expires_at)'],
    worker: [
      'SELECT (id, osb_id, instance_id, tenant_id, serial, state, created_at, expires_at, revoked_at, settled_at)',
      'UPDATE (state, sealed_credentials, revoked_at, settled_at)',
    ],
  },
  /** Maintained by a trigger that runs as the owner. */
  quota_usage: { api: ['SELECT'], worker: ['SELECT'] },
  /** Rows are added by triggers that run as the owner; the worker merges them. */
  totals: { api: ['SELECT'], worker: ['SELECT', 'INSERT', 'DELETE'] },
  operation_kinds: {},
  operations: {
    api: ['SELECT', 'INSERT', 'UPDATE (state, description, finished_at, lease_until, fence)'],
    worker: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'],
  },
  certificate_authorities: {
    api: ['SELECT', 'INSERT', 'UPDATE (state, since, sealed_key)'],
    gateway: ['SELECT (id, name, state, certificate)'],
  },
  gateways: {
    api: ['SELECT', 'DELETE'],
    gateway: ['SELECT', 'INSERT', 'UPDATE (lease_until, connections)', 'DELETE'],
    worker: ['SELECT'],
  },
  gateway_names: { api: ['SELECT', 'INSERT', 'DELETE'], gateway: ['SELECT'] },
  gateway_counts: { api: ['SELECT'], gateway: ['SELECT', 'INSERT', 'UPDATE (count)'] },
  workers: { api: ['SELECT'], worker: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'] },
  node_rules: { api: ['SELECT'], worker: ['SELECT', 'INSERT', 'UPDATE'] },
  certificate_requests: {
    api: ['SELECT', 'UPDATE (certificate, ca)', 'DELETE'],
    gateway: ['SELECT', 'INSERT (id, request)', 'DELETE'],
  },
  revocation_acknowledgements: {
    api: ['SELECT', 'DELETE'],
    gateway: ['INSERT'],
    worker: ['SELECT', 'DELETE'],
  },
  master_keys: { api: ['SELECT', 'INSERT', 'UPDATE (state, since)'] },
  presences: {
    api: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'],
    gateway: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'],
  },
  audit: { api: ['SELECT', auditRow], worker: [auditRow] },
};
