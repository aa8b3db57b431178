import type { Catalog } from '../../core/catalog/catalog.ts';
import { bindSchema, provisionSchema, updateSchema } from '../../core/catalog/parameter-schemas.ts';
import type { JsonObject } from '../../core/model/json.ts';
import { maximumPollingSeconds } from '../../core/operation-deadline.ts';

/**
 * The catalog as the platform sees it (OSB 2.17, "Catalog Management"). Only what works today is declared.
 * @param view.simulated says in every description that there are no VMs behind it.
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
      metadata: { shareable: false, ...offering.metadata },
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
