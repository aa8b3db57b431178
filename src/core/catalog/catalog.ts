import type { Egress, HostShape } from '../hypervisor.ts';
import type { JsonObject } from '../model.ts';

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
  /** How long a binding's certificate is valid, in days. */
  readonly bindingValidDays: number;
}

export interface Offering {
  readonly id: string;
  readonly name: string;
  readonly description: string;
  readonly tags: readonly string[];
  readonly metadata: JsonObject;
  readonly plans: readonly Plan[];
}

/** What the broker offers: checked once at start, frozen from then on. */
export interface Catalog {
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
 * refuses newer ones (osb-notes 9). Requests are validated with this very schema.
 */
export function provisionSchema(plan: Plan): JsonObject {
  const egress = plan.egress.kind === 'internet' ? ['internet', 'none'] : ['none'];
  return {
    $schema: 'http://json-schema.org/draft-04/schema#',
    type: 'object',
    additionalProperties: false,
    properties: {
      egress: {
        description:
          'Where containers may open connections to: "internet", or "none". Private networks, other hosts and the machine itself are refused in any case.',
        type: 'string',
        enum: egress,
      },
    },
  };
}

/** The schema of a plan's bind parameters: there are none yet. */
export function bindSchema(): JsonObject {
  return {
    $schema: 'http://json-schema.org/draft-04/schema#',
    type: 'object',
    additionalProperties: false,
    properties: {},
  };
}

/**
 * The catalog as the platform sees it (OSB 2.17, "Catalog Management"). Only what works today is declared.
 * @param simulated says in every description that there are no virtual machines behind it.
 */
export function toOsbCatalog(catalog: Catalog, simulated: boolean): JsonObject {
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
      allow_context_updates: false,
      plan_updateable: false,
      // Another org could bind, and a host serves one tenant only.
      metadata: { ...offering.metadata, shareable: false },
      plans: offering.plans.map((plan) => ({
        id: plan.id,
        name: plan.name,
        description: `${notice}${plan.description}`,
        free: plan.free,
        bindable: true,
        binding_rotatable: false,
        plan_updateable: false,
        maximum_polling_duration: maximumPollingSeconds,
        metadata: plan.metadata,
        schemas: {
          service_instance: { create: { parameters: provisionSchema(plan) } },
          service_binding: { create: { parameters: bindSchema() } },
        },
      })),
    })),
  };
}

/** How long a platform polls an operation at the most, in seconds; operations end themselves before. */
export const maximumPollingSeconds = 1800;
