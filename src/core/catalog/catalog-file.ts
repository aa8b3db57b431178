import { Ajv } from 'ajv';
import type { TenantScope } from './catalog.ts';
import type { IdlePolicy } from '../model/host.ts';
import type { JsonObject } from '../model/json.ts';
import { offeringMetadata, planMetadata } from './metadata-schemas.ts';
import { networkPattern } from '../networks.ts';

/** Limits as the catalog's file states them; see `Limits`. */
export interface LimitsEntry {
  instances?: number;
  vcpus?: number;
  memory_mib?: number;
  disk_gib?: number;
  published_ports?: number;
}

export interface QuotasEntry {
  total?: LimitsEntry;
  tenant?: LimitsEntry;
}

/** A catalog in its file form. */
export interface CatalogFile {
  quotas?: QuotasEntry;
  pool?: { size?: number; max_size?: number };
  offerings: {
    id: string;
    name: string;
    description: string;
    tags?: string[];
    metadata?: JsonObject;
    tenant?: TenantScope;
    plans: PlanEntry[];
  }[];
}

export interface PlanEntry {
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

const hosts = { type: 'integer', minimum: 0, maximum: 1000 };

const quotas = { type: 'object', additionalProperties: false, properties: { total: limits, tenant: limits } };

/** Checks the form of a catalog's file; the rules between its entries are in `catalog-rules.ts`. */
export const validateFile = new Ajv({ allErrors: true, allowUnionTypes: true }).compile<CatalogFile>({
  type: 'object',
  required: ['offerings'],
  additionalProperties: false,
  properties: {
    quotas,
    pool: { type: 'object', additionalProperties: false, properties: { size: hosts, max_size: hosts } },
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
          metadata: offeringMetadata,
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
                metadata: planMetadata,
                host: {
                  type: 'object',
                  required: ['vcpus', 'memory_mib', 'disk_gib', 'published_ports'],
                  additionalProperties: false,
                  properties: {
                    vcpus: { type: 'integer', minimum: 1, maximum: 64 },
                    // With less, the guest can't run an engine and a container.
                    memory_mib: { type: 'integer', minimum: 512, maximum: 1_048_576 },
                    disk_gib: { type: 'integer', minimum: 1, maximum: 16_384 },
                    published_ports: { type: 'integer', minimum: 0, maximum: 1000 },
                  },
                },
                template: { enum: ['restore', 'never'] },
                pool: hosts,
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
