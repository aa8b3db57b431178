import type { ErrorObject } from 'ajv';
import {
  type CatalogFile,
  type LimitsEntry,
  type PlanEntry,
  type QuotasEntry,
  validateFile,
} from './catalog-file.ts';
import { brokenRules } from './catalog-rules.ts';
import type { Catalog, PoolSize } from './catalog.ts';
import type { Egress } from '../hypervisor/host-spec.ts';
import type { Limits, Quotas } from '../model/usage.ts';

/** A catalog breaks a rule, so the process doesn't start. The message names the rule and the field. */
export class CatalogError extends Error {
  override readonly name = 'CatalogError';
}

/**
 * Checks a catalog in its file form and turns it into a frozen {@link Catalog}.
 * @param source names the catalog in messages, for example the file's path.
 * @throws CatalogError that names every broken rule (docs/osb.md 8 to 12).
 */
export function loadCatalog(file: unknown, source: string): Catalog {
  if (!validateFile(file)) {
    const problems = (validateFile.errors ?? []).map(problemOf);
    throw new CatalogError(`The catalog (${source}) can't be used: ${[...new Set(problems)].join('; ')}.`);
  }
  const catalog = toCatalog(file);
  const problems = brokenRules(catalog);
  if (problems.length > 0) {
    throw new CatalogError(`The catalog (${source}) can't be used: ${problems.join('; ')}.`);
  }
  return catalog;
}

function problemOf(error: ErrorObject): string {
  const extra =
    error.keyword === 'additionalProperties'
      ? ` (${(error.params as { additionalProperty: string }).additionalProperty})`
      : '';
  return `${error.instancePath || '/'} ${error.message ?? error.keyword}${extra}`;
}

function toCatalog(file: CatalogFile): Catalog {
  return {
    quotas: toQuotas(file.quotas),
    pool: toPoolSize(file),
    offerings: file.offerings.map((offering) => ({
      id: offering.id,
      name: offering.name,
      description: offering.description,
      tags: offering.tags ?? [],
      metadata: offering.metadata ?? {},
      tenant: offering.tenant ?? 'org',
      plans: offering.plans.map((plan) => ({
        id: plan.id,
        name: plan.name,
        description: plan.description,
        free: plan.free,
        metadata: plan.metadata ?? {},
        shape: {
          vcpus: plan.host.vcpus,
          memoryMib: plan.host.memory_mib,
          diskGib: plan.host.disk_gib,
        },
        publishedPorts: plan.host.published_ports,
        egress: toEgress(plan.egress),
        fromTemplate: plan.template !== 'never',
        pool: plan.pool ?? 0,
        idle: plan.idle ?? 'suspend',
        bindingValidDays: plan.bindings?.valid_days ?? 365,
        quotas: toQuotas(plan.quotas),
      })),
    })),
  };
}

/** Without sizes: what the plans ask for, and twice that in times of demand. */
function toPoolSize({ pool = {}, offerings }: CatalogFile): PoolSize {
  const ofPlans = offerings.flatMap(({ plans }) => plans.map((plan) => plan.pool ?? 0));
  const size = pool.size ?? ofPlans.reduce((sum, count) => sum + count, 0);
  return { size, maxSize: pool.max_size ?? 2 * size };
}

function toQuotas(quotas: QuotasEntry | undefined): Quotas {
  return { total: toLimits(quotas?.total), tenant: toLimits(quotas?.tenant) };
}

function toLimits(entry: LimitsEntry = {}): Limits {
  return {
    ...(entry.instances !== undefined && { instances: entry.instances }),
    ...(entry.vcpus !== undefined && { vcpus: entry.vcpus }),
    ...(entry.memory_mib !== undefined && { memoryMib: entry.memory_mib }),
    ...(entry.disk_gib !== undefined && { diskGib: entry.disk_gib }),
    ...(entry.published_ports !== undefined && { publishedPorts: entry.published_ports }),
  };
}

function toEgress(egress: PlanEntry['egress']): Egress {
  if (Array.isArray(egress)) return { kind: 'networks', cidrs: egress };
  return { kind: egress ?? 'internet' };
}
