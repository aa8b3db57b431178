import type { Knex } from 'knex';
import { refused } from '../core/errors.ts';
import type { Instance } from '../core/model/instance.ts';
import type { DifferenceKind, OwnerNote } from '../core/ports/host-differences.ts';
import { createInstanceRecords } from './records/instances.ts';
import type { DifferenceRow, HostRow } from './records/rows.ts';

const why: Readonly<Record<Exclude<DifferenceKind, 'owned' | 'disputed'>, string>> = {
  leftover: 'Postgres has it as destroyed, and a destroyed host is never used again: remove it.',
  ownerless: 'No tenant has used it, so there is nothing to adopt: remove it.',
  unreadable:
    'its own record can\'t be read, so its owner is unknown: restore its "host.json" from a backup, or remove it.',
  missing: 'nothing of it exists: delete its instance, or restore its folder from a backup of the node.',
};

/**
 * Makes an orphan the host of its instance again, within a transaction. Only the instance that both the host's own
 * record and the note name can get it.
 * @throws RefusedError
 */
export async function adoptHost(transaction: Knex, hostId: string): Promise<void> {
  const refuse = (reason: string) => refused.conflict(`Host ${hostId} can't be adopted: ${reason}`);
  const found: DifferenceRow | undefined = await transaction<DifferenceRow>('host_differences')
    .where({ host_id: hostId })
    .forUpdate()
    .first();
  if (found === undefined) throw refused.notFound(`There is no difference about a host ${hostId}.`);
  const { kind, owner, owner_note: note } = found;
  if (kind !== 'owned' && kind !== 'disputed') throw refuse(why[kind]);
  if (note === null || note.instance.id !== owner) {
    throw refuse(
      `what "owners/${hostId}.json" in the state directory says about its instance is missing or of another one. Save what its tenant needs, or restore a newer backup of the database, or remove the host.`,
    );
  }
  const instance = await recordInstance(transaction, note, refuse);
  const hosts = () => transaction<HostRow>('hosts');
  const other = await hosts().where({ instance_id: instance.id }).whereNot({ state: 'destroyed' }).first();
  if (other !== undefined) {
    throw refuse(
      `its instance ${instance.osbId} has the host ${other.id} by now. Remove one of the two, then adopt the other.`,
    );
  }
  const row = await hosts().where({ id: hostId }).first();
  if (row === undefined) {
    await insertRow(transaction, note, instance, refuse);
  } else if (row.instance_id === null && row.state !== 'destroyed') {
    // Its claim was lost. A host gets its owner out of the state `parked` only.
    await hosts().where({ id: hostId }).update({ state: 'parked' });
    const { planName, shape, publishedPorts } = note.spec;
    await hosts()
      .where({ id: hostId })
      .update({
        ...{ instance_id: instance.id, tenant_id: instance.tenantId, state: 'running' },
        // It may have got the size of a larger plan.
        ...{ plan_name: planName, vcpus: shape.vcpus, memory_mib: shape.memoryMib, disk_gib: shape.diskGib },
        ports: publishedPorts.count,
        ...{ egress: jsonOf(note.spec.egress), registries: jsonOf(note.spec.registries), idle: note.idle },
      } as object);
  } else {
    throw refuse(`Postgres has given it to another instance, which has never used it. Remove the host.`);
  }
  await transaction('host_differences').where({ host_id: hostId }).delete();
}

const jsonOf = (value: unknown) => JSON.stringify(value);

/** The instance of the note, recorded again if Postgres has lost it. */
async function recordInstance(
  transaction: Knex,
  { instance, platform, tenantKey }: OwnerNote,
  refuse: (reason: string) => Error,
): Promise<Pick<Instance, 'id' | 'osbId' | 'tenantId'>> {
  const records = createInstanceRecords(transaction);
  const known: { id: string } | undefined = await transaction<{ id: string; name: string }>('platforms')
    .where({ name: platform })
    .first('id');
  if (known === undefined) {
    throw refuse(`the platform ${platform} does not exist: "berth platform create ${platform}" makes it.`);
  }
  await records.lockInstanceId(known.id, instance.osbId);
  const recorded =
    (await records.instanceById(instance.id, 'lock')) ?? (await records.instance(known.id, instance.osbId));
  if (recorded === undefined) {
    const tenant = await records.findOrCreateTenant(known.id, tenantKey);
    const { expiresAt, ...rest } = instance;
    await records.insertInstance({
      ...rest,
      ...{ platformId: known.id, tenantId: tenant.id },
      expiresAt: expiresAt === undefined ? undefined : new Date(expiresAt),
    });
    await records.setInstanceState(instance.id, 'ready');
    return { id: instance.id, osbId: instance.osbId, tenantId: tenant.id };
  }
  if (recorded.id !== instance.id) {
    throw refuse(`the platform has created its instance ${instance.osbId} once more. Remove the host.`);
  }
  if (recorded.state !== 'ready') {
    throw refuse(`its instance ${instance.osbId} is in state "${recorded.state}". Remove the host.`);
  }
  return recorded;
}

async function insertRow(
  transaction: Knex,
  { spec, idle }: OwnerNote,
  instance: Pick<Instance, 'id' | 'tenantId'>,
  refuse: (reason: string) => Error,
): Promise<void> {
  const { hostId, slot, shape, publishedPorts } = spec;
  const taken = await transaction('slots').where({ slot, host_id: null }).update({ host_id: hostId });
  if (taken === 0) {
    throw refuse(`its slot ${slot} belongs to another host by now. Delete that one's instance first.`);
  }
  await transaction('hosts')
    .insert({
      ...{ id: hostId, instance_id: instance.id, tenant_id: instance.tenantId, state: 'running', slot },
      ...{
        plan_name: spec.planName,
        vcpus: shape.vcpus,
        memory_mib: shape.memoryMib,
        disk_gib: shape.diskGib,
      },
      ...{ first_port: publishedPorts.first, ports: publishedPorts.count, port_block: publishedPorts.count },
      ...{ egress: jsonOf(spec.egress), registries: jsonOf(spec.registries), idle },
      image_version: spec.imageVersion ?? null,
    })
    .catch((error: unknown) => {
      // 23P01: exclusion_violation (PostgreSQL manual, appendix A).
      if ((error as { code?: string }).code !== '23P01') throw error;
      throw refuse("its published ports belong to another host by now. Delete that one's instance first.");
    });
}
