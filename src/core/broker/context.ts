import type { JsonObject } from '../model.ts';

/** What a context says: null and empty are the same as absent (osb-notes 21), and hide nothing that is known. */
export function said(context: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(context).filter(([, value]) => value !== '' && value !== null));
}
