import type { Egress, HostShape } from '../hypervisor/host-spec.ts';
import type { IdlePolicy } from '../model/host.ts';
import type { JsonObject } from '../model/json.ts';
import type { Quotas } from '../model/usage.ts';

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
  /** The networks that a host of this plan may reach; a parameter can only narrow them. */
  readonly egress: Egress;
  /** Whether hosts are restored from the template; otherwise each of them boots cold. */
  readonly fromTemplate: boolean;
  /** How many parked hosts have this plan's size at least, so that its creates wait for nothing. */
  readonly pool: number;
  /** What happens to an idle host; a parameter can override it. */
  readonly idle: IdlePolicy;
  /** How long a binding's certificate is valid, in days; a parameter can only shorten it. */
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
  readonly tenant: TenantScope;
  readonly plans: readonly Plan[];
}

/** How many hosts are parked ahead of creates, of all plans together. */
export interface PoolSize {
  /** Also while nothing is created. */
  readonly size: number;
  /** The most, while many are created. */
  readonly maxSize: number;
}

/** What counts as one tenant on Cloud Foundry: an org, a space, or a single instance. */
export type TenantScope = 'org' | 'space' | 'instance';

/** What the broker offers. Checked once at start; immutable afterwards. */
export interface Catalog {
  /** Limits on all hosts. */
  readonly quotas: Quotas;
  readonly pool: PoolSize;
  readonly offerings: readonly Offering[];
}
