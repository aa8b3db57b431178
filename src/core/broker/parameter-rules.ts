import type { ErrorObject } from 'ajv';
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
  /**
   * Checks what an instance has after an update.
   * @param changed the parameters of the update: the others were set earlier, and the message says so.
   */
  checkMerged(plan: Plan, parameters: JsonObject, changed: JsonObject): void;
}

/** A rule that a parameter breaks. */
interface Problem {
  /** Name of the parameter; empty if the rule is not about a single one. */
  readonly parameter: string;
  readonly text: string;
}

/** Compiles the schemas of all plans. */
export function createParameterRules(catalog: Catalog): ParameterRules {
  const ajv = new Ajv({ allErrors: true });
  const compile = (schemaOf: (plan: Plan) => JsonObject) => {
    const compiled = new Map(allPlans(catalog).map((plan) => [plan.id, ajv.compile(schemaOf(plan))]));
    return (plan: Plan, parameters: JsonObject): readonly Problem[] => {
      const validate = compiled.get(plan.id);
      if (validate === undefined) throw new Error(`no schema for plan ${plan.id}`);
      return validate(parameters) ? [] : (validate.errors ?? []).map(problemOf);
    };
  };
  const problemsOfProvision = compile(provisionSchema);
  const check = (problemsOf: ReturnType<typeof compile>) => (plan: Plan, parameters: JsonObject) => {
    refuseIfAny(problemsOf(plan, parameters).map(({ text }) => text));
  };
  return {
    checkProvision: check(problemsOfProvision),
    checkUpdate: check(compile(updateSchema)),
    checkBind: check(compile(bindSchema)),
    checkMerged(plan, parameters, changed) {
      const texts = problemsOfProvision(plan, parameters).map(({ parameter, text }) =>
        parameter === '' || parameter in changed
          ? text
          : `${text}: the instance has ${JSON.stringify(parameters[parameter]).slice(0, 100)} from an earlier request. Set ${parameter} in the same request, or to null for the default of the plan ${plan.name}`,
      );
      refuseIfAny(texts);
    },
  };
}

function problemOf({ instancePath, keyword, message, params }: ErrorObject): Problem {
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
  return {
    parameter: instancePath.split('/')[1] ?? '',
    text: `parameters${instancePath} ${message ?? keyword}${detail}`,
  };
}

function refuseIfAny(problems: readonly string[]): void {
  if (problems.length > 0) throw refused.badRequest(`${[...new Set(problems)].slice(0, 10).join('; ')}.`);
}
