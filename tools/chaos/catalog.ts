const host = { vcpus: 1, memory_mib: 768, disk_gib: 4, published_ports: 4 };

export const ids = { service: 'chaos-container-host', plan: 'chaos-small', grown: 'chaos-grown' } as const;

/** The body of a create: each instance has its own tenant. */
export const createBody = (id: string) => ({
  service_id: ids.service,
  plan_id: ids.plan,
  organization_guid: `org-of-${id}`,
  space_guid: 'space',
});

/** The installation's catalog: the shape of the cached templates, with a pool and plain creates. */
export const catalog = {
  offerings: [
    {
      id: ids.service,
      name: 'container-host',
      description: 'A container host for the chaos drill',
      plans: [
        { id: ids.plan, name: 'small', description: 'The smallest', free: true, host, pool: 1 },
        {
          id: ids.grown,
          name: 'grown',
          description: 'The target of updates',
          free: true,
          host: { ...host, memory_mib: 1024, disk_gib: 5, published_ports: 6 },
          template: 'never',
        },
      ],
    },
  ],
};
