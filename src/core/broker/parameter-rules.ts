import draft04 from 'ajv-draft-04';
import type { Catalog, Plan } from '../catalog/catalog.ts';
import { allPlans } from '../catalog/lookup.ts';
import { bindSchema, provisionSchema, updateSchema } from '../catalog/parameter-schemas.ts';
import { refused } from '../errors.ts';
import type { JsonObject } from '../model/json.ts';

// The package is CommonJS: its class is the default export's default.
const Ajv = draft04.default;

/** Validates parameters with the schemas that the catalog publishes. */
export interface ParameterRules {
  /** @throws RefusedError (400) that names the path and the rule. */
  checkProvision(plan: Plan, parameters: JsonObject): void;
  checkUpdate(plan: Plan, parameters: JsonObject): void;
  checkBind(plan: Plan, parameters: JsonObject): void;
}

/** Compiles the schemas of all plans. */
export function createParameterRules(catalog: Catalog): ParameterRules {
  const ajv = new Ajv({ allErrors: true });
  const compile = (schemaOf: (plan: Plan) => JsonObject) => {
    const compiled = new Map(allPlans(catalog).map((plan) => [plan.id, ajv.compile(schemaOf(plan))]));
    return (plan: Plan, parameters: JsonObject) => {
      const validate = compiled.get(plan.id);
      if (validate === undefined) throw new Error(`no schema for plan ${plan.id}`);
      if (validate(parameters)) return;
      const problems = (validate.errors ?? []).map(({ instancePath, keyword, message, params }) => {
        const { additionalProperty, allowedValues } = params as {
          additionalProperty?: string;
          allowedValues?: unknown[];
        };
        const detail =
          additionalProperty !== undefined
            ? `: ${JSON.stringify(additionalProperty.slice(0, 100))}`
            : allowedValues !== undefined
              ? `: ${allowedValues.map((value) => JSON.stringify(value)).join(', ')}`
              : '';
        return `parameters${instancePath} ${message ?? keyword}${detail}`;
      });
      throw refused.badRequest(`${[...new Set(problems)].slice(0, 10).join('; ')}.`);
    };
  };
  return {
    checkProvision: compile(provisionSchema),
    checkUpdate: compile(updateSchema),
    checkBind: compile(bindSchema),
  };
}
