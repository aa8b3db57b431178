import type { JsonObject } from './json.ts';

/**
 * An OSB service instance: what a tenant asked for.
 * `creating` → `ready` | `failed`; `ready` → `expired` at its expiry; any of them → `deleting` →
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
  /** The platform's context, such as the ids and names of org and space. */
  readonly context: JsonObject;
  readonly state: InstanceState;
  /** When its host is destroyed; undefined if it doesn't expire. */
  readonly expiresAt: Date | undefined;
}

export type InstanceState = 'creating' | 'ready' | 'failed' | 'expired' | 'deleting' | 'deleted';
