import type { Knex } from 'knex';
import type { UpdateTarget } from '../../core/model/operation.ts';

/** Writes the result of an update to the instance: plan, parameters and expiry. */
export async function setInstanceTarget(connection: Knex, id: string, target: UpdateTarget): Promise<void> {
  await connection('instances')
    .where({ id })
    .update({
      plan_id: target.planId,
      parameters: JSON.stringify(target.parameters),
      expires_at: target.expiresAt,
      updated_at: new Date(),
    });
}

/** Writes the result of an update to the instance's host. */
export async function setHostTarget(
  connection: Knex,
  instanceId: string,
  target: UpdateTarget,
): Promise<void> {
  await connection('hosts')
    .where({ instance_id: instanceId })
    .whereNot({ state: 'destroyed' })
    .update({
      plan_name: target.planName,
      vcpus: target.shape.vcpus,
      memory_mib: target.shape.memoryMib,
      disk_gib: target.shape.diskGib,
      ports: target.publishedPorts,
      egress: target.egress,
      idle: target.idle,
      registries: target.registries,
      ...(target.imageVersion !== undefined && { image_version: target.imageVersion }),
      updated_at: new Date(),
    });
}
