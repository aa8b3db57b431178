import type { Catalog } from './catalog.ts';

/** Cloud Controller refuses offerings whose tags together are longer. */
const maximumTagCharacters = 2048;

/** The problems that a catalog's schema can't express: one sentence for each. */
export function brokenRules(catalog: Catalog): string[] {
  const plans = catalog.offerings.flatMap((offering) => offering.plans);
  const problems = [
    ...repeated([...catalog.offerings, ...plans].map((entry) => entry.id)).map(
      (value) => `the id ${value} is used more than once; ids are globally unique`,
    ),
    ...repeated(catalog.offerings.map((offering) => offering.name)).map(
      (value) => `two offerings are named ${value}`,
    ),
    // Drivers know plans by their names.
    ...repeated(plans.map((plan) => plan.name)).map((value) => `two plans are named ${value}`),
  ];
  for (const offering of catalog.offerings) {
    if (offering.metadata['shareable'] === true && offering.tenant !== 'org') {
      problems.push(
        `${offering.name} is shareable, but its hosts serve one ${offering.tenant} each: set tenant to org, or metadata.shareable to false`,
      );
    }
    if (offering.tags.join('').length > maximumTagCharacters) {
      problems.push(
        `the tags of ${offering.name} have more than ${maximumTagCharacters} characters together`,
      );
    }
  }
  for (const plan of plans) {
    if (plan.pool > 0 && !plan.fromTemplate) {
      problems.push(`${plan.name} has a pool, but no template to fill it from: remove pool or template`);
    }
  }
  const { size, maxSize } = catalog.pool;
  const ofPlans = plans.reduce((sum, plan) => sum + plan.pool, 0);
  if (ofPlans > size) {
    problems.push(
      `pool.size is ${size}, but the plans' pools have ${ofPlans} hosts together: raise the one or lower the others`,
    );
  }
  if (maxSize < size) {
    problems.push(`pool.max_size is ${maxSize}, but pool.size is ${size}: raise the one or lower the other`);
  }
  if (size > 0 && !plans.some((plan) => plan.fromTemplate)) {
    problems.push(
      'there is a pool, but no plan is restored from the template: remove pool, or template: never',
    );
  }
  return problems;
}

function repeated(values: readonly string[]): string[] {
  return [...new Set(values.filter((value, index) => values.indexOf(value) !== index))];
}
