import type { Knex } from 'knex';
import { type Catalog, findPlan } from '../core/catalog/catalog.ts';
import { CatalogError } from '../core/catalog/load.ts';

/**
 * Stops a start whose catalog has dropped the id of an offering or a plan that instances still use: nobody could
 * update, bind or delete them (docs/osb.md 12).
 * @throws CatalogError which names each of them and how many instances use it.
 */
export async function refuseDroppedPlans(database: Knex, catalog: Catalog): Promise<void> {
  const used: { service_id: string; plan_id: string; plan_name: string | null; instances: number }[] =
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
  const dropped = used.filter((one) => findPlan(catalog, one.service_id, one.plan_id) === undefined);
  if (dropped.length === 0) return;
  const places = dropped.map(({ service_id: service, plan_id: plan, plan_name: name, instances }) => {
    const called = name === null ? '' : ` (${name})`;
    return `the plan ${plan}${called} of the offering ${service}, which ${instances === 1 ? '1 instance uses' : `${instances} instances use`}`;
  });
  throw new CatalogError(
    `The catalog has dropped ids that are in use: ${places.join('; ')}. Put them back, under these ids, until those instances are deleted or updated to another plan.`,
  );
}
