import type { Plan, PoolSize } from './catalog.ts';

/** The pool is prepared for as many creates as there were in this time, in seconds. */
export const demandSeconds = 600;

/** The plan whose hosts fit most others, once the rest is added. */
function smallestOf(plans: readonly Plan[]): Plan | undefined {
  const bySize = (one: Plan, other: Plan) =>
    one.shape.memoryMib - other.shape.memoryMib ||
    one.shape.vcpus - other.shape.vcpus ||
    one.shape.diskGib - other.shape.diskGib;
  return [...plans].sort(bySize)[0];
}

/**
 * How many hosts of each plan's size are to be parked: first what the plans ask for, then as many as were created lately, the
 * plan most in demand first. The rest have the smallest size, and get what a larger plan has more when they are claimed.
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
  const demand = plans.reduce((sum, plan) => sum + demandOf(plan), 0);
  let free = Math.min(maxSize, Math.max(size, demand));
  for (const count of targets.values()) free -= count;
  const add = ({ name }: Plan, count: number) => {
    const added = Math.max(0, Math.min(free, count));
    targets.set(name, (targets.get(name) ?? 0) + added);
    free -= added;
  };
  for (const plan of [...plans].sort((one, other) => demandOf(other) - demandOf(one)))
    add(plan, demandOf(plan) - plan.pool);
  const smallest = smallestOf(plans);
  if (smallest !== undefined) add(smallest, free);
  return targets;
}
