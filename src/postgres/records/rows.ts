import type { Egress, RegistrySettings } from '../../core/hypervisor/host-spec.ts';
import type { StartedFrom } from '../../core/hypervisor/lifecycle.ts';
import type { Binding } from '../../core/model/binding.ts';
import type { Host, HostHalt, HostPower, HostState, IdlePolicy, PoolHost } from '../../core/model/host.ts';
import type { Instance, InstanceState } from '../../core/model/instance.ts';
import type { DifferenceKind, OwnerNote } from '../../core/ports/host-differences.ts';
import type { JsonObject } from '../../core/model/json.ts';
import type { LeasedOperation, Operation, OperationKind, UpdateTarget } from '../../core/model/operation.ts';

/** The rows as Postgres returns them, and their translation into the core's model. */

export interface InstanceRow {
  id: string;
  platform_id: string;
  tenant_id: string;
  osb_id: string;
  service_id: string;
  plan_id: string;
  parameters: JsonObject;
  context: JsonObject;
  state: InstanceState;
  expires_at: Date | null;
  updated_at: Date;
  /** Set once the platform has used `osb_id` for another instance. */
  id_released_at: Date | null;
}

/** What {@link toInstance} reads. */
export const instanceColumns = [
  'id',
  'platform_id',
  'tenant_id',
  'osb_id',
  'service_id',
  'plan_id',
  'parameters',
  'context',
  'state',
  'expires_at',
] as const satisfies (keyof InstanceRow)[];

export type InstanceFields = Pick<InstanceRow, (typeof instanceColumns)[number]>;

export function toInstance(row: InstanceFields): Instance {
  return {
    id: row.id,
    platformId: row.platform_id,
    tenantId: row.tenant_id,
    osbId: row.osb_id,
    serviceId: row.service_id,
    planId: row.plan_id,
    parameters: row.parameters,
    context: row.context,
    state: row.state,
    expiresAt: row.expires_at ?? undefined,
  };
}

export interface HostRow {
  id: string;
  /** Null while the host is in the pool, as is tenant_id. */
  instance_id: string | null;
  tenant_id: string | null;
  plan_name: string;
  slot: number;
  vcpus: number;
  memory_mib: number;
  disk_gib: number;
  first_port: number;
  ports: number;
  port_block: number;
  egress: Egress;
  registries: RegistrySettings;
  image_version: string | null;
  /** Whether an instance of a larger plan may claim it while it is parked. */
  can_grow: boolean;
  state: HostState | PoolHost['state'] | 'disputed';
  /** Why it was set aside (state `disputed`). */
  problem: string | null;
  started_from: StartedFrom | null;
  first_started_from: StartedFrom | null;
  idle: IdlePolicy;
  power: HostPower;
  power_since: Date;
  wake_refused_at: Date | null;
  engine_host: string | null;
  engine_port: number | null;
  quarantined_at: Date | null;
  memory_lost_at: Date | null;
  halted: HostHalt | null;
  updated_at: Date;
}

export function toHost(row: HostRow): Host {
  const { instance_id: instanceId, tenant_id: tenantId, state } = row;
  const isOwned = state === 'creating' || state === 'running' || state === 'destroyed';
  if (instanceId === null || tenantId === null || !isOwned) {
    throw new Error(`host ${row.id} has no owner`);
  }
  return {
    ...body(row),
    instanceId,
    tenantId,
    state,
    startedFrom: row.started_from ?? undefined,
    idle: row.idle,
    power: row.power,
    powerSince: row.power_since,
    engine: toEngine(row),
    halted: row.halted ?? undefined,
    quarantined: row.quarantined_at !== null,
    memoryLostAt: row.memory_lost_at ?? undefined,
  };
}

export function toPoolHost(row: HostRow): PoolHost {
  if (row.state !== 'parking' && row.state !== 'parked') throw new Error(`host ${row.id} is not in the pool`);
  return { ...body(row), state: row.state };
}

const body = (row: HostRow) => ({
  id: row.id,
  planName: row.plan_name,
  slot: row.slot,
  shape: { vcpus: row.vcpus, memoryMib: row.memory_mib, diskGib: row.disk_gib },
  publishedPorts: { first: row.first_port, count: row.ports },
  portBlock: row.port_block,
  egress: row.egress,
  registries: row.registries,
  imageVersion: row.image_version ?? undefined,
});

export function toEngine(row: Pick<HostRow, 'engine_host' | 'engine_port'>) {
  if (row.engine_host === null || row.engine_port === null) return undefined;
  return { host: row.engine_host, port: row.engine_port };
}

export interface BindingRow {
  id: string;
  osb_id: string;
  instance_id: string;
  tenant_id: string;
  serial: string;
  certificate: string;
  sealed_credentials: Buffer | null;
  app_guid: string | null;
  parameters: JsonObject;
  predecessor: string | null;
  state: Binding['state'];
  created_at: Date;
  expires_at: Date;
  revoked_at: Date | null;
  settled_at: Date | null;
  /** Set once the platform has used `osb_id` for another binding. */
  id_released_at: Date | null;
}

export function toBinding(row: BindingRow): Binding {
  return {
    id: row.id,
    osbId: row.osb_id,
    instanceId: row.instance_id,
    serial: row.serial,
    createdAt: row.created_at,
    expiresAt: row.expires_at,
    state: row.state,
    revokedAt: row.revoked_at ?? undefined,
    request: {
      appGuid: row.app_guid ?? undefined,
      parameters: row.parameters,
      predecessor: row.predecessor ?? undefined,
    },
    sealedCredentials: row.sealed_credentials ?? undefined,
  };
}

export interface OperationRow {
  id: string;
  kind: OperationKind;
  instance_id: string;
  state: Operation['state'];
  step: string;
  description: string;
  failure: string | null;
  attempts: number;
  /** bigint: the driver returns it as text. */
  fence: string;
  lease_owner: string | null;
  lease_until: Date | null;
  run_after: Date;
  deadline: Date;
  created_at: Date;
  finished_at: Date | null;
  target: UpdateTarget | null;
}

export function toOperation(row: OperationRow): Operation {
  return {
    id: row.id,
    kind: row.kind,
    instanceId: row.instance_id,
    state: row.state,
    step: row.step,
    description: row.description,
    failure: row.failure ?? undefined,
    attempts: row.attempts,
    deadline: row.deadline,
    createdAt: row.created_at,
    target: row.target ?? undefined,
  };
}

export function toLeasedOperation(row: OperationRow): LeasedOperation {
  return { ...toOperation(row), fence: Number(row.fence) };
}

export interface DifferenceRow {
  host_id: string;
  kind: DifferenceKind;
  slot: number | null;
  first_port: number | null;
  ports: number | null;
  owner: string | null;
  owner_note: OwnerNote | null;
  first_seen_at: Date;
  removal_requested_at: Date | null;
  failure: string | null;
}
