import type * as env from './env.ts';

/** One environment variable. docs/settings.md and example.env are checked against these (tools/checks/settings.mjs). */
export interface Setting<T> {
  readonly name: string;
  readonly type: env.SettingType<T>;
  /** Default in the form of the variable's text, or, if it is computed, its description. */
  readonly default: string | { readonly computed: string };
  /** The value if the variable is unset or empty. */
  fallback(): T;
  readonly description: string;
}

/** A setting whose default is a literal. */
export function literal<T>(
  name: string,
  type: env.SettingType<T>,
  text: string,
  description: string,
): Setting<T> {
  const value = type.parse(text);
  if (value === undefined) throw new Error(`the default of ${name} must be ${type.expected}`);
  return { name, type, default: text, fallback: () => value, description };
}

/** A setting whose default depends on the node. */
export const computed = <T>(
  name: string,
  type: env.SettingType<T>,
  fallback: () => T,
  what: string,
  description: string,
): Setting<T> => ({ name, type, default: { computed: what }, fallback, description });

/** A setting that is undefined unless it is set. */
export const optional = <T>(
  name: string,
  type: env.SettingType<T>,
  what: string,
  description: string,
): Setting<T | undefined> => computed<T | undefined>(name, type, () => undefined, what, description);
