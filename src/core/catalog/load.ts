import { Ajv, type ErrorObject } from 'ajv';
import type { Egress } from '../hypervisor/host-spec.ts';
import type { IdlePolicy } from '../model/host.ts';
import type { JsonObject } from '../model/json.ts';
import { networkPattern } from '../networks.ts';
import type { Limits, Quotas } from '../model/usage.ts';
import type { Catalog, TenantCut } from './catalog.ts';

/** A catalog breaks a rule; the message names the rule and the place. The start is refused. */
export class CatalogError extends Error {
  override readonly name = 'CatalogError';
}

interface LimitsEntry {
  instances?: number;
  vcpus?: number;
  memory_mib?: number;
  disk_gib?: number;
  published_ports?: number;
}

interface QuotasEntry {
  total?: LimitsEntry;
  tenant?: LimitsEntry;
}

interface CatalogFile {
  quotas?: QuotasEntry;
  offerings: {
    id: string;
    name: string;
    description: string;
    tags?: string[];
    metadata?: JsonObject;
    tenant?: TenantCut;
    plans: PlanEntry[];
  }[];
}

interface PlanEntry {
  id: string;
  name: string;
  description: string;
  free: boolean;
  metadata?: JsonObject;
  host: { vcpus: number; memory_mib: number; disk_gib: number; published_ports: number };
  template?: 'restore' | 'never';
  pool?: number;
  idle?: IdlePolicy;
  egress?: 'internet' | 'none' | string[];
  bindings?: { valid_days: number };
  quotas?: QuotasEntry;
}

const id = { type: 'string', minLength: 1, maxLength: 255 };
/** CLI-friendly (OSB 2.17, "Catalog Management"): alphanumeric characters, periods and hyphens; here in lower case. */
const name = { type: 'string', pattern: '^[a-z0-9][a-z0-9.-]{0,49}$' };
const description = { type: 'string', minLength: 1, maxLength: 10_000 };
const limits = {
  type: 'object',
  additionalProperties: false,
  properties: Object.fromEntries(
    ['instances', 'vcpus', 'memory_mib', 'disk_gib', 'published_ports'].map((resource) => [
      resource,
      { type: 'integer', minimum: 0, maximum: 1_000_000_000 },
    ]),
  ),
};
const quotas = { type: 'object', additionalProperties: false, properties: { total: limits, tenant: limits } };

const validateFile = new Ajv({ allErrors: true, allowUnionTypes: true }).compile<CatalogFile>({
  type: 'object',
  required: ['offerings'],
  additionalProperties: false,
  properties: {
    quotas,
    offerings: {
      type: 'array',
      minItems: 1,
      items: {
        type: 'object',
        required: ['id', 'name', 'description', 'plans'],
        additionalProperties: false,
        properties: {
          id,
          name,
          description,
          tags: { type: 'array', items: { type: 'string', minLength: 1 } },
          metadata: { type: 'object' },
          tenant: { enum: ['org', 'space', 'instance'] },
          plans: {
            type: 'array',
            minItems: 1,
            items: {
              type: 'object',
              required: ['id', 'name', 'description', 'free', 'host'],
              additionalProperties: false,
              properties: {
                id,
                name,
                description,
                free: { type: 'boolean' },
                metadata: { type: 'object' },
                host: {
                  type: 'object',
                  required: ['vcpus', 'memory_mib', 'disk_gib', 'published_ports'],
                  additionalProperties: false,
                  properties: {
                    vcpus: { type: 'integer', minimum: 1, maximum: 64 },
                    // Below this the guest has no room for an engine and a container.
                    memory_mib: { type: 'integer', minimum: 512, maximum: 1_048_576 },
                    disk_gib: { type: 'integer', minimum: 1, maximum: 16_384 },
                    published_ports: { type: 'integer', minimum: 0, maximum: 1000 },
                  },
                },
                template: { enum: ['restore', 'never'] },
                pool: { type: 'integer', minimum: 0, maximum: 1000 },
                idle: { enum: ['run', 'pause', 'suspend'] },
                quotas,
                egress: {
                  anyOf: [
                    { enum: ['internet', 'none'] },
                    {
                      type: 'array',
                      minItems: 1,
                      maxItems: 100,
                      items: { type: 'string', pattern: networkPattern },
                    },
                  ],
                },
                bindings: {
                  type: 'object',
                  required: ['valid_days'],
                  additionalProperties: false,
                  properties: { valid_days: { type: 'integer', minimum: 1, maximum: 3650 } },
                },
              },
            },
          },
        },
      },
    },
  },
});

/** Cloud Controller refuses tags that together are longer. */
const maximumTagCharacters = 2048;

/**
 * Checks a catalog in its file form and turns it into a frozen {@link Catalog}.
 * @param source names the catalog in messages, for example the file's path.
 * @throws CatalogError which names every rule that is broken (docs/osb.md 8 to 12).
 */
export function loadCatalog(file: unknown, source: string): Catalog {
  if (!validateFile(file)) {
    const problems = (validateFile.errors ?? []).map((error) => inWords(error));
    throw new CatalogError(`The catalog (${source}) can't be used: ${[...new Set(problems)].join('; ')}.`);
  }
  const catalog = toCatalog(file);
  const problems = rulesBroken(catalog);
  if (problems.length > 0) {
    throw new CatalogError(`The catalog (${source}) can't be used: ${problems.join('; ')}.`);
  }
  return catalog;
}

function inWords(error: ErrorObject): string {
  const extra =
    error.keyword === 'additionalProperties'
      ? ` (${(error.params as { additionalProperty: string }).additionalProperty})`
      : '';
  return `${error.instancePath || '/'} ${error.message ?? error.keyword}${extra}`;
}

function toCatalog(file: CatalogFile): Catalog {
  return {
    quotas: toQuotas(file.quotas),
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
        idle: plan.idle ?? 'pause',
        bindingValidDays: plan.bindings?.valid_days ?? 365,
        quotas: toQuotas(plan.quotas),
      })),
    })),
  };
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

function rulesBroken(catalog: Catalog): string[] {
  const plans = catalog.offerings.flatMap((offering) => offering.plans);
  const problems = [
    ...repeated([...catalog.offerings, ...plans].map((entry) => entry.id)).map(
      (value) => `the id ${value} is used more than once; ids are globally unique`,
    ),
    ...repeated(catalog.offerings.map((offering) => offering.name)).map(
      (value) => `two offerings are named ${value}`,
    ),
    // A template is found by its plan's name.
    ...repeated(plans.map((plan) => plan.name)).map((value) => `two plans are named ${value}`),
  ];
  for (const offering of catalog.offerings) {
    if (offering.tags.join('').length > maximumTagCharacters) {
      problems.push(
        `the tags of ${offering.name} have more than ${maximumTagCharacters} characters together`,
      );
    }
  }
  for (const plan of plans) {
    if (plan.pool > 0 && !plan.fromTemplate) {
      problems.push(`${plan.name} has a pool, but no template to fill it from: leave out one of the two`);
    }
  }
  return problems;
}

function repeated(values: readonly string[]): string[] {
  return [...new Set(values.filter((value, index) => values.indexOf(value) !== index))];
}
