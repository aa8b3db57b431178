import type { Plan } from './catalog.ts';
import { durationPattern } from '../duration.ts';
import type { JsonObject } from '../model/json.ts';
import { networkPattern } from '../networks.ts';
import { longestCertificate, registryPattern, registryUrlPattern } from '../registries.ts';

/**
 * The schema of a plan's provision parameters, in JSON schema draft 04: Cloud Controller refuses later
 * drafts (docs/osb.md 9). Requests are validated with the same schema.
 */
export function provisionSchema(plan: Plan): JsonObject {
  return schema(provisionProperties(plan));
}

/** The schema of update parameters: those of a provision, which null resets (docs/osb.md 24), and one-time actions. */
export function updateSchema(plan: Plan): JsonObject {
  const properties = Object.entries(provisionProperties(plan)).map(([name, { description, ...rule }]) => [
    name,
    { description: `${description} Null resets it to its default.`, anyOf: [rule, { type: 'null' }] },
  ]);
  return schema({
    ...(Object.fromEntries(properties) as Properties),
    sleep_now: {
      description:
        'Pauses or suspends the host once, whatever runs on it: "pause" stops its processors, "suspend" also frees its memory. The next connection wakes it.',
      type: 'string',
      enum: ['pause', 'suspend'],
    },
  });
}

/** The schema of a plan's bind parameters. */
export function bindSchema(plan: Plan): JsonObject {
  return schema({
    valid_for: {
      description: `How long the credentials are valid, such as "90m", "12h" or "30d"; at most, and by default, ${plan.bindingValidDays} days.`,
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
  const keywords = { internet: ['internet', 'none'], networks: ['none'], none: ['none'] }[plan.egress.kind];
  const networks = {
    type: 'array',
    minItems: 1,
    maxItems: 50,
    items: { type: 'string', pattern: networkPattern },
  };
  return {
    published_ports: {
      description: `Number of ports that containers can publish; the default is ${plan.publishedPorts}.`,
      type: 'integer',
      minimum: 0,
      maximum: plan.publishedPorts,
    },
    egress: {
      description:
        'Where containers may open connections to: "internet", "none", or a list of IPv4 networks such as ["140.82.112.0/20"], within what the plan allows. Private networks, other hosts and the node itself are refused unless the plan names them.',
      anyOf: [{ enum: keywords }, ...(plan.egress.kind === 'none' ? [] : [networks])],
    },
    idle: {
      description: `What happens to the host while it is unused and no container runs: "run" leaves it running, "pause" stops its processors, "suspend" soon also frees its memory. The next connection wakes it. The default is "${plan.idle}".`,
      type: 'string',
      enum: ['run', 'pause', 'suspend'],
    },
    registry_mirrors: {
      description:
        'Mirrors of Docker Hub that the engine asks first, such as ["https://mirror.example.org"]: scheme and host, optionally a port, and no path.',
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
        'Certificate authorities that are trusted for a registry besides the public ones: the registry, as "host" or "host:port" exactly as in image names, and the CA certificates in PEM.',
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
