/**
 * How long after its deletion a platform's id of an instance or binding is refused, in milliseconds: until then a DELETE
 * of the platform's orphan mitigation may still arrive, and it must not find another instance (docs/osb.md 40).
 */
export const idRestMs = 3600 * 1000;
