import type { JsonObject } from '../model/json.ts';

/** A platform's context without its null and empty fields: they mean the same as absent ones (docs/osb.md 21). */
export function withoutEmpty(context: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(context).filter(([, value]) => value !== '' && value !== null));
}
