import draft04 from 'ajv-draft-04';
import { allPlans } from '../catalog/lookup.ts';
import { bindSchema, provisionSchema, updateSchema } from '../catalog/parameter-schemas.ts';
import type { Catalog, Plan } from '../catalog/catalog.ts';
import { durationMs } from '../duration.ts';
import { refused } from '../errors.ts';
import type { Egress, RegistrySettings } from '../hypervisor/host-spec.ts';
import type { IdlePolicy } from '../model/host.ts';
import type { JsonObject } from '../model/json.ts';
import { registriesOf } from '../registries.ts';
import { specialNetworks } from '../networks.ts';
import { contains, overlap } from '../../lib/ipv4.ts';

// The package is CommonJS: its class is the default export's default.
const Ajv = draft04.default;

/** Checks parameters against the very schemas that the catalog shows. */
export interface ParameterRules {
  /** @throws RefusedError (400) which says the path and the rule. */
  checkProvision(plan: Plan, parameters: JsonObject): void;
  checkUpdate(plan: Plan, parameters: JsonObject): void;
  checkBind(plan: Plan, parameters: JsonObject): void;
}

/** Compiles the schemas of every plan, once. */
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

/** What parameters ask of a host beyond its plan. They have passed the plan's schema. */
export interface Demand {
  readonly publishedPorts: number;
  readonly egress: Egress;
  readonly registries: RegistrySettings;
  readonly idle: IdlePolicy;
  /** In milliseconds; undefined: the instance has no term. */
  readonly expiresAfterMs: number | undefined;
}

/** @throws RefusedError (400) where they ask for more than the plan allows. */
export function demandOf(plan: Plan, parameters: JsonObject): Demand {
  const expiresAfter = parameters['expires_after'] as string | undefined;
  return {
    publishedPorts: (parameters['published_ports'] as number | undefined) ?? plan.publishedPorts,
    egress: egressOf(plan, parameters['egress'] as string | readonly string[] | undefined),
    registries: registriesOf(parameters),
    idle: (parameters['idle'] as IdlePolicy | undefined) ?? plan.idle,
    expiresAfterMs: expiresAfter === undefined ? undefined : durationMs(expiresAfter),
  };
}

/** What a host may reach: what its plan allows, or less where the parameter says so. */
function egressOf(plan: Plan, wanted: string | readonly string[] | undefined): Egress {
  if (wanted === undefined || wanted === plan.egress.kind) return plan.egress;
  if (typeof wanted === 'string') return { kind: 'none' };
  const allowed = plan.egress;
  wanted.forEach((network, index) => {
    const where = `parameters/egress/${index} (${network})`;
    if (allowed.kind === 'networks' && !allowed.cidrs.some((cidr) => contains(cidr, network))) {
      throw refused.badRequest(
        `${where} is in none of the networks that the plan allows: ${allowed.cidrs.join(', ')}.`,
      );
    }
    const special = specialNetworks.find((one) => overlap(one, network));
    if (allowed.kind === 'internet' && special !== undefined) {
      throw refused.badRequest(
        `${where} has addresses of ${special}, a private or special network: leave them out.`,
      );
    }
  });
  return {
    kind: 'networks',
    cidrs: wanted,
    ...(allowed.kind === 'internet' && { publicOnly: true }),
  };
}
