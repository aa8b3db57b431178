import type { JsonObject } from '../model/json.ts';

export interface UpdateRequest {
  readonly platformId: string;
  readonly instanceId: string;
  readonly serviceId: string;
  readonly planId: string | undefined;
  /** Undefined changes none; a parameter that is null is reset (docs/osb.md 24). */
  readonly parameters: JsonObject | undefined;
  readonly context: JsonObject | undefined;
  /** Undefined leaves the host's image as it is (docs/osb.md 21). */
  readonly maintenanceVersion: string | undefined;
  readonly acceptsIncomplete: boolean;
}
