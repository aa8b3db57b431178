import type { Plan } from './catalog.ts';
import { durationPattern } from '../duration.ts';
import type { JsonObject } from '../model/json.ts';
import { networkPattern } from '../networks.ts';
import { longestCertificate, registryPattern, registryUrlPattern } from '../registries.ts';

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
