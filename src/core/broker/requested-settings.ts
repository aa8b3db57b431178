import type { Plan } from '../catalog/catalog.ts';
import { durationMs } from '../duration.ts';
import { refused } from '../errors.ts';
import type { Egress, RegistrySettings } from '../hypervisor/host-spec.ts';
import type { IdlePolicy } from '../model/host.ts';
import type { JsonObject } from '../model/json.ts';
import { specialNetworks } from '../networks.ts';
import { registriesOf } from '../registries.ts';
import { contains, overlap } from '../../lib/ipv4.ts';

/** Settings of a host that an instance's parameters ask for, within its plan. */
export interface RequestedSettings {
  readonly publishedPorts: number;
  readonly egress: Egress;
  readonly registries: RegistrySettings;
  readonly idle: IdlePolicy;
  /** In milliseconds; undefined if the instance doesn't expire. */
  readonly expiresAfterMs: number | undefined;
}

/**
 * @param parameters match the plan's schema.
 * @param changed those that this request sets; the others were set earlier, and a refusal says so.
 * @throws RefusedError (400) if they ask for more than the plan allows.
 */
export function requestedSettings(
  plan: Plan,
  parameters: JsonObject,
  changed: JsonObject = parameters,
): RequestedSettings {
  const expiresAfter = parameters['expires_after'] as string | undefined;
  return {
    publishedPorts: (parameters['published_ports'] as number | undefined) ?? plan.publishedPorts,
    egress: egressOf(
      plan,
      parameters['egress'] as string | readonly string[] | undefined,
      'egress' in changed,
    ),
    registries: registriesOf(parameters),
    idle: (parameters['idle'] as IdlePolicy | undefined) ?? plan.idle,
    expiresAfterMs: expiresAfter === undefined ? undefined : durationMs(expiresAfter),
  };
}

/** The networks that a host may reach: those of its plan, or fewer if the parameter says so. */
function egressOf(plan: Plan, wanted: string | readonly string[] | undefined, isChanged: boolean): Egress {
  if (wanted === undefined || wanted === plan.egress.kind) return plan.egress;
  if (typeof wanted === 'string') return { kind: 'none' };
  const allowed = plan.egress;
  const hint = isChanged
    ? ''
    : ` It is from an earlier request: set egress in the same request, or to null for the default of the plan ${plan.name}.`;
  wanted.forEach((network, index) => {
    const field = `parameters/egress/${index} (${network})`;
    if (allowed.kind === 'networks' && !allowed.cidrs.some((cidr) => contains(cidr, network))) {
      throw refused.badRequest(
        `${field} is in none of the networks that the plan allows: ${allowed.cidrs.join(', ')}.${hint}`,
      );
    }
    const special = specialNetworks.find((one) => overlap(one, network));
    if (allowed.kind === 'internet' && special !== undefined) {
      throw refused.badRequest(
        `${field} has addresses of ${special}, a private or special network: leave them out.${hint}`,
      );
    }
  });
  return {
    kind: 'networks',
    cidrs: wanted,
    ...(allowed.kind === 'internet' && { publicOnly: true }),
  };
}
