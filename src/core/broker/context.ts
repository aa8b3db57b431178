import type { JsonObject } from '../model/json.ts';

/** What a context says: null and empty are the same as absent (docs/osb.md 21), and hide nothing that is known. */
export function withoutEmpty(context: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(context).filter(([, value]) => value !== '' && value !== null));
}
