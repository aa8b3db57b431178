import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { dockerFor } from '../../tools/lib/docker.ts';
import { type BrokerProcess, makeBrokerProcess, serviceId } from '../support/broker-process.ts';
import { eventually } from '../support/eventually.ts';

const plans = {
  small: { vcpus: 1, memory_mib: 768, disk_gib: 4 },
  medium: { vcpus: 2, memory_mib: 1536, disk_gib: 6 },
  large: { vcpus: 4, memory_mib: 2560, disk_gib: 8 },
};
type PlanName = keyof typeof plans;
const size = 4;
const planId = (name: string) => `e2e-${name}`;
/** Share of a guest's memory that its kernel leaves at least; of each plan more than the plan before has. */
const usable = 0.8;

let broker: BrokerProcess;
beforeAll(async () => {
  broker = await makeBrokerProcess(4);
  await writeFile(
    path.join(broker.stateDirectory, 'catalog.yaml'),
    JSON.stringify({
      pool: { size },
      offerings: [
        {
          ...{ id: serviceId, name: 'container-host', description: 'A container host' },
          plans: Object.entries(plans).map(([name, host]) => ({
            ...{ id: planId(name), name, description: `The plan ${name}`, free: true, idle: 'run' },
            host: { ...host, published_ports: 2 },
          })),
        },
      ],
    }),
  );
  await broker.start();
}, 1_200_000);
afterAll(() => broker.dispose(), 300_000);

it(
  'ten creates over three plans at once, from a pool of the smallest size: each host has the size of its plan',
  { timeout: 1_200_000 },
  async () => {
    const parked = async () => {
      const { body } = await broker.ask<{ hosts: { state: string }[] }>('GET', '/mgmt/hosts');
      return body.hosts.filter(({ state }) => state === 'parked').length;
    };
    await eventually('the pool is full', async () => (await parked()) === size, { deadlineMs: 300_000 });
    const wanted: readonly PlanName[] = [
      ...(['large', 'medium', 'small'] as const),
      ...(['large', 'medium', 'small'] as const),
      ...(['large', 'medium', 'small'] as const),
      'small',
    ];
    const descriptions = await Promise.all(
      wanted.map(async (name, index) => {
        const id = `host-${index}`;
        const { status, body } = await broker.create(id, 'org', planId(name));
        expect(status, JSON.stringify(body)).toBeLessThan(300);
        const { credentials } = (await broker.bind(id, `binding-${index}`, planId(name))).body;
        const docker = await dockerFor(credentials);
        try {
          const { stdout, stderr } = await docker.run(['info', '--format', '{{.NCPU}} {{.MemTotal}}']);
          const [processors, memoryBytes = Number.NaN] = stdout.split(' ').map(Number);
          expect(processors, stderr).toBe(plans[name].vcpus);
          expect(memoryBytes / 1024 ** 2).toBeLessThan(plans[name].memory_mib);
          expect(memoryBytes / 1024 ** 2).toBeGreaterThan(usable * plans[name].memory_mib);
        } finally {
          await docker.dispose();
        }
        const last = await broker.ask('GET', `/v2/service_instances/${id}/last_operation`);
        return String(last.body['description']);
      }),
    );
    const fromPool = descriptions.filter((text) => text.includes('came out of the pool'));
    expect(fromPool.length, descriptions.join('; ')).toBeGreaterThanOrEqual(size);
  },
);
