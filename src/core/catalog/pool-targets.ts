import type { Plan, PoolSize } from './catalog.ts';

/** The plan whose hosts fit most others, once the rest is added. */
function smallestOf(plans: readonly Plan[]): Plan | undefined {
  const bySize = (one: Plan, other: Plan) =>
    one.shape.memoryMib - other.shape.memoryMib ||
    one.shape.vcpus - other.shape.vcpus ||
    one.shape.diskGib - other.shape.diskGib;
  return [...plans].sort(bySize)[0];
}

/** Share of the pool that keeps the smallest size whatever is in demand: it serves most plans. */
const smallestShare = 1 / 4;

/**
 * How many hosts of each plan's size are to be parked: first what the plans ask for and a share of the smallest size, then as
 * many as were created lately, the plan most in demand first. The rest have the smallest size too. A create of a larger plan
 * claims one of them if none of its size is parked.
 * @param plans those that hosts can be restored for now.
 * @param created how many hosts of each plan were created lately, by the plan's id.
 */
export function poolTargets(
  plans: readonly Plan[],
  { size, maxSize }: PoolSize,
  created: ReadonlyMap<string, number>,
): ReadonlyMap<string, number> {
  const demandOf = ({ id }: Plan) => created.get(id) ?? 0;
  const targets = new Map(plans.map(({ name, pool }) => [name, pool]));
  const targetOf = ({ name }: Plan) => targets.get(name) ?? 0;
  const total = Math.min(
    maxSize,
    Math.max(
      size,
      plans.reduce((sum, plan) => sum + demandOf(plan), 0),
    ),
  );
  let free = total - plans.reduce((sum, plan) => sum + plan.pool, 0);
  const raise = (plan: Plan, target: number) => {
    const added = Math.max(0, Math.min(free, target - targetOf(plan)));
    targets.set(plan.name, targetOf(plan) + added);
    free -= added;
  };
  const smallest = smallestOf(plans);
  if (smallest === undefined) return targets;
  raise(smallest, Math.ceil(total * smallestShare));
  for (const plan of [...plans].sort((one, other) => demandOf(other) - demandOf(one)))
    raise(plan, demandOf(plan));
  raise(smallest, total);
  return targets;
}
