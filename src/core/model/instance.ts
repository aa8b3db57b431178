import type { JsonObject } from './json.ts';

/**
 * An OSB service instance: what a tenant asked for.
 * `creating` → `ready` | `failed`; `ready` → `expired` at the end of its term; any of them → `deleting` →
 * `deleted`, or back to `failed`.
 */
export interface Instance {
  /** UUID of the row; never leaves the broker. */
  readonly id: string;
  readonly platformId: string;
  readonly tenantId: string;
  /** The platform's id of the instance. */
  readonly osbId: string;
  readonly serviceId: string;
  readonly planId: string;
  readonly parameters: JsonObject;
  /** What the platform says of it: names of org and space, and such. */
  readonly context: JsonObject;
  readonly state: InstanceState;
  /** When its host is destroyed; undefined where it has no term. */
  readonly expiresAt: Date | undefined;
}

export type InstanceState = 'creating' | 'ready' | 'failed' | 'expired' | 'deleting' | 'deleted';
