/** A container in a box, as a data URL: platforms show it without a request to another server. */
const image = `data:image/svg+xml;base64,${Buffer.from(
  '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" fill="none" stroke="#1d5c87" stroke-width="4">' +
    '<rect x="4" y="4" width="56" height="56" rx="8"/><path d="M16 40h32v10H16zM16 27h14v10H16zM34 27h14v10H34zM25 14h14v10H25z"/></svg>',
).toString('base64')}`;

/** What all plans have in common, for the lists that dashboards show. */
const common = [
  'A virtual machine that no other tenant shares',
  'Works with docker, compose and buildx; TLS credentials for each binding',
];
const free = [{ amount: { usd: 0 }, unit: 'MONTHLY' }];

/** The catalog that is used if `BERTH_CATALOG` names no file, in the form of such a file. */
export const builtInCatalog = {
  pool: { size: 4, max_size: 8 },
  offerings: [
    {
      id: '5d8f1e7c-0a3b-4a52-9d4e-6f4b3a1c7e10',
      name: 'container-host',
      description: 'A Docker engine in a virtual machine that no other tenant shares',
      tags: ['docker', 'container', 'vm'],
      metadata: {
        displayName: 'Container host',
        longDescription:
          'A Docker engine of your own, in a virtual machine that serves nobody else. Use it with the ordinary docker command line; unbinding cuts its credentials off at once.',
        providerDisplayName: 'Berth',
        documentationUrl: 'https://docs.docker.com/reference/cli/docker/',
        imageUrl: image,
        shareable: true,
      },
      plans: [
        {
          id: '0b6d2a54-3f0e-4c0e-8a53-1d1f4c1f9a01',
          name: 'small',
          description: '1 vCPU, 768 MiB memory, 4 GiB disk, 10 published ports',
          free: true,
          metadata: {
            displayName: 'Small',
            bullets: ['1 vCPU', '768 MiB memory', '4 GiB disk', '10 published ports', ...common],
            costs: free,
          },
          host: { vcpus: 1, memory_mib: 768, disk_gib: 4, published_ports: 10 },
        },
        {
          id: '0b6d2a54-3f0e-4c0e-8a53-1d1f4c1f9a02',
          name: 'medium',
          description: '2 vCPUs, 2 GiB memory, 16 GiB disk, 20 published ports',
          free: true,
          metadata: {
            displayName: 'Medium',
            bullets: ['2 vCPUs', '2 GiB memory', '16 GiB disk', '20 published ports', ...common],
            costs: free,
          },
          host: { vcpus: 2, memory_mib: 2048, disk_gib: 16, published_ports: 20 },
          pool: 1,
        },
        {
          id: '0b6d2a54-3f0e-4c0e-8a53-1d1f4c1f9a03',
          name: 'large',
          description: '4 vCPUs, 4 GiB memory, 40 GiB disk, 20 published ports',
          free: true,
          metadata: {
            displayName: 'Large',
            bullets: ['4 vCPUs', '4 GiB memory', '40 GiB disk', '20 published ports', ...common],
            costs: free,
          },
          host: { vcpus: 4, memory_mib: 4096, disk_gib: 40, published_ports: 20 },
        },
      ],
    },
  ],
};
