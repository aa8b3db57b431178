import draft04 from 'ajv-draft-04';
import { allPlans, bindSchema, type Catalog, type Plan, provisionSchema } from '../catalog/catalog.ts';
import { refused } from '../errors.ts';
import type { Egress } from '../hypervisor.ts';
import type { JsonObject } from '../model.ts';

// The package is CommonJS: its class is the default export's default.
const Ajv = draft04.default;

/** Checks parameters against the very schemas that the catalog shows. */
export interface ParameterRules {
  /** @throws RefusedError (400) which says the path and the rule. */
  checkProvision(plan: Plan, parameters: JsonObject): void;
  checkBind(parameters: JsonObject): void;
}

/** Compiles the schemas of every plan, once. */
export function createParameterRules(catalog: Catalog): ParameterRules {
  const ajv = new Ajv({ allErrors: true });
  const provision = new Map(allPlans(catalog).map((plan) => [plan.id, ajv.compile(provisionSchema(plan))]));
  const bind = ajv.compile(bindSchema());

  const check = (validate: typeof bind, parameters: JsonObject) => {
    if (validate(parameters)) return;
    const problems = (validate.errors ?? []).map((error) => {
      const params = error.params as { additionalProperty?: string; allowedValues?: unknown[] };
      const detail =
        params.additionalProperty !== undefined
          ? `: ${JSON.stringify(params.additionalProperty.slice(0, 100))}`
          : params.allowedValues !== undefined
            ? `: ${params.allowedValues.map((value) => JSON.stringify(value)).join(', ')}`
            : '';
      return `parameters${error.instancePath} ${error.message ?? error.keyword}${detail}`;
    });
    throw refused.badRequest(`${problems.slice(0, 10).join('; ')}.`);
  };
  return {
    checkProvision(plan, parameters) {
      const validate = provision.get(plan.id);
      if (validate === undefined) throw new Error(`no schema for plan ${plan.id}`);
      check(validate, parameters);
    },
    checkBind: (parameters) => {
      check(bind, parameters);
    },
  };
}

/** What a host may reach: what its plan allows, or less where the parameter says so. */
export function egressOf(plan: Plan, parameters: JsonObject): Egress {
  return parameters['egress'] === 'none' ? { kind: 'none' } : plan.egress;
}
