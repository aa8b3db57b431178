import type { Egress, HostShape } from '../hypervisor/host-spec.ts';
import { durationPattern } from '../duration.ts';
import type { IdlePolicy } from '../model/host.ts';
import type { JsonObject } from '../model/json.ts';
import { maximumPollingSeconds } from '../operation-deadline.ts';
import { networkPattern } from '../networks.ts';
import type { Quotas } from '../model/usage.ts';
import { longestCertificate, registryPattern, registryUrlPattern } from '../registries.ts';

/** A plan as the broker uses it. */
export interface Plan {
  readonly id: string;
  readonly name: string;
  readonly description: string;
  readonly free: boolean;
  readonly metadata: JsonObject;
  readonly shape: HostShape;
  /** Number of ports that each host of this plan can publish. */
  readonly publishedPorts: number;
  /** The most that a host of this plan may reach; a parameter can only narrow it. */
  readonly egress: Egress;
  /** Whether hosts are restored from a template; else each one boots cold. */
  readonly fromTemplate: boolean;
  /** How many hosts are held ready ahead of creates. */
  readonly pool: number;
  /** What is done with a host that nobody uses; a parameter may choose otherwise. */
  readonly idle: IdlePolicy;
  /** How long a binding's certificate is valid at the most, in days, and where nothing shorter is asked for. */
  readonly bindingValidDays: number;
  /** Limits on the hosts of this plan. */
  readonly quotas: Quotas;
}

export interface Offering {
  readonly id: string;
  readonly name: string;
  readonly description: string;
  readonly tags: readonly string[];
  readonly metadata: JsonObject;
  readonly tenant: TenantCut;
  readonly plans: readonly Plan[];
}

/** What makes a tenant on Cloud Foundry: its org, or finer, its space, or each instance for itself. */
export type TenantCut = 'org' | 'space' | 'instance';

/** What the broker offers: checked once at start, frozen from then on. */
export interface Catalog {
  /** Limits on all hosts. */
  readonly quotas: Quotas;
  readonly offerings: readonly Offering[];
}

/** The offering with this id. */
export function findOffering(catalog: Catalog, serviceId: string): Offering | undefined {
  return catalog.offerings.find((offering) => offering.id === serviceId);
}

/** The plan with this id, within its offering. */
export function findPlan(catalog: Catalog, serviceId: string, planId: string): Plan | undefined {
  return findOffering(catalog, serviceId)?.plans.find((plan) => plan.id === planId);
}

/** Every plan of every offering, in the catalog's order. */
export function allPlans(catalog: Catalog): readonly Plan[] {
  return catalog.offerings.flatMap((offering) => offering.plans);
}

/**
 * The schema of a plan's provision parameters, in JSON schema draft 04 and no later form: Cloud Controller
 * refuses newer ones (docs/osb.md 9). Requests are validated with this very schema.
 */
export function provisionSchema(plan: Plan): JsonObject {
  return schema(provisionProperties(plan));
}

/** The schema of update parameters: the same, and null takes a parameter back (docs/osb.md 24); and what is done once. */
export function updateSchema(plan: Plan): JsonObject {
  const properties = Object.entries(provisionProperties(plan)).map(([name, { description, ...rule }]) => [
    name,
    { description: `${description} Null takes it back.`, anyOf: [rule, { type: 'null' }] },
  ]);
  return schema({
    ...(Object.fromEntries(properties) as Properties),
    sleep_now: {
      description:
        'Puts the host to sleep once, whatever runs on it: "pause" stops its processors, "suspend" frees its memory as well. The next connection wakes it.',
      type: 'string',
      enum: ['pause', 'suspend'],
    },
  });
}

/** The schema of a plan's bind parameters. */
export function bindSchema(plan: Plan): JsonObject {
  return schema({
    valid_for: {
      description: `How long the credentials are valid, such as "90m", "12h" or "30d"; ${plan.bindingValidDays} days at the most, and where it is left out.`,
      type: 'string',
      pattern: durationPattern,
    },
  });
}

type Properties = Record<string, { description: string } & Record<string, unknown>>;

function schema(properties: Properties): JsonObject {
  return {
    $schema: 'http://json-schema.org/draft-04/schema#',
    type: 'object',
    additionalProperties: false,
    properties,
  };
}

function provisionProperties(plan: Plan): Properties {
  const words = { internet: ['internet', 'none'], networks: ['none'], none: ['none'] }[plan.egress.kind];
  const networks = {
    type: 'array',
    minItems: 1,
    maxItems: 50,
    items: { type: 'string', pattern: networkPattern },
  };
  return {
    published_ports: {
      description: `Number of ports that containers can publish; ${plan.publishedPorts} where it is left out.`,
      type: 'integer',
      minimum: 0,
      maximum: plan.publishedPorts,
    },
    egress: {
      description:
        'Where containers may open connections to: "internet", "none", or a list of IPv4 networks such as ["203.0.113.0/24"], within what the plan allows. Private networks, other hosts and the machine itself are refused unless the plan names them.',
      anyOf: [{ enum: words }, ...(plan.egress.kind === 'none' ? [] : [networks])],
    },
    idle: {
      description: `What happens to the host while nobody uses it and no container runs: "run" leaves it running, "pause" stops its processors, "suspend" later frees its memory as well. The next connection wakes it. "${plan.idle}" where it is left out.`,
      type: 'string',
      enum: ['run', 'pause', 'suspend'],
    },
    registry_mirrors: {
      description:
        'Mirrors of Docker Hub that the engine asks first, such as ["https://mirror.example.org"]: scheme and host, with a port or not, and no path.',
      type: 'array',
      uniqueItems: true,
      maxItems: 10,
      items: { type: 'string', pattern: registryUrlPattern },
    },
    insecure_registries: {
      description:
        'Registries whose certificates are not checked and which may speak HTTP: "host", "host:port", or an IPv4 network.',
      type: 'array',
      uniqueItems: true,
      maxItems: 20,
      items: { type: 'string', anyOf: [{ pattern: networkPattern }, { pattern: registryPattern }] },
    },
    registry_authorities: {
      description:
        'Authorities that may vouch for a registry besides the public ones: the registry, as "host" or "host:port" just as image names have it, and their certificates in PEM.',
      type: 'array',
      maxItems: 10,
      items: {
        type: 'object',
        required: ['registry', 'certificate'],
        additionalProperties: false,
        properties: {
          registry: { type: 'string', pattern: registryPattern },
          certificate: { type: 'string', maxLength: longestCertificate },
        },
      },
    },
    expires_after: {
      description:
        'After this time, such as "90m", "12h" or "30d", counted from the creation or from the update that sets it, the host is destroyed with all its data. The instance stays listed as expired until it is deleted.',
      type: 'string',
      pattern: durationPattern,
    },
  };
}

/**
 * The catalog as the platform sees it (OSB 2.17, "Catalog Management"). Only what works today is declared.
 * @param view.simulated says in every description that there are no virtual machines behind it.
 * @param view.imageVersion of the image that new hosts boot: platforms offer an upgrade to hosts of another one.
 * @param view.newerFields whether the platform knows the fields that are newer than 2.14.
 */
export function toOsbCatalog(
  catalog: Catalog,
  view: { simulated: boolean; imageVersion: string | undefined; newerFields: boolean },
): JsonObject {
  const { simulated, imageVersion, newerFields } = view;
  const notice = simulated ? 'SIMULATED, no virtual machine: ' : '';
  return {
    services: catalog.offerings.map((offering) => ({
      id: offering.id,
      name: offering.name,
      description: `${notice}${offering.description}`,
      tags: offering.tags,
      bindable: true,
      instances_retrievable: true,
      bindings_retrievable: true,
      ...(newerFields && { allow_context_updates: true }),
      plan_updateable: true,
      // Another org could bind, and a host serves one tenant only.
      metadata: { ...offering.metadata, shareable: false },
      plans: offering.plans.map((plan) => ({
        id: plan.id,
        name: plan.name,
        description: `${notice}${plan.description}`,
        free: plan.free,
        bindable: true,
        ...(newerFields && fieldsOfPlanSince215(imageVersion)),
        metadata: plan.metadata,
        schemas: {
          service_instance: {
            create: { parameters: provisionSchema(plan) },
            update: { parameters: updateSchema(plan) },
          },
          service_binding: { create: { parameters: bindSchema(plan) } },
        },
      })),
    })),
  };
}

function fieldsOfPlanSince215(imageVersion: string | undefined): JsonObject {
  return {
    binding_rotatable: true,
    plan_updateable: true,
    maximum_polling_duration: maximumPollingSeconds,
    ...(imageVersion !== undefined && {
      maintenance_info: {
        version: imageVersion,
        description:
          'A new guest image. An upgrade restarts the host; its data, ports and bindings are kept.',
      },
    }),
  };
}
