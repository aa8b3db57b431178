import type { Knex } from 'knex';
import type { PlansInUse } from '../core/ports/plans-in-use.ts';

export function createPlansInUse(database: Knex): PlansInUse {
  return {
    async list() {
      const rows: { service_id: string; plan_id: string; plan_name: string | null; instances: number }[] =
        await database('instances')
          .leftJoin('hosts', (join) =>
            join.on('hosts.instance_id', 'instances.id').andOnVal('hosts.state', '<>', 'destroyed'),
          )
          .whereNot('instances.state', 'deleted')
          .groupBy('service_id', 'plan_id')
          .orderBy(['service_id', 'plan_id'])
          .select('service_id', 'plan_id')
          .max('plan_name as plan_name')
          .select(database.raw('count(*)::integer AS instances'));
      return rows.map((row) => ({
        serviceId: row.service_id,
        planId: row.plan_id,
        planName: row.plan_name ?? undefined,
        instances: row.instances,
      }));
    },
  };
}
