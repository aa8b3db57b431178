/** Names that a platform gave with an instance's context; undefined if it gave none. */
export interface ContextNames {
  readonly organizationName: string | undefined;
  readonly spaceName: string | undefined;
  /** Of Kubernetes. */
  readonly namespace: string | undefined;
}

/**
 * A tenant's name for people: `org` if the tenant is an org, `org/space` if it is a space or an instance, the
 * namespace on Kubernetes. Undefined unless the platform gave every name that it needs.
 * @param key as `tenantKey` returns it.
 */
export function tenantName(
  key: string,
  { organizationName, spaceName, namespace }: ContextNames,
): string | undefined {
  const [scope] = JSON.parse(key) as [string, ...string[]];
  if (scope === 'kubernetes' || organizationName === undefined) return namespace;
  if (scope === 'org') return organizationName;
  return spaceName === undefined ? undefined : `${organizationName}/${spaceName}`;
}
