import { beforeAll, expect, it, onTestFinished } from 'vitest';
import { attack } from '../../tools/lib/attack/attack.ts';
import { connectPlatform } from '../../tools/lib/platform.ts';
import { largerPlanId, makeBrokerProcess } from '../support/broker-process.ts';
import { compiled } from '../support/build.ts';

beforeAll(async () => {
  await compiled();
}, 180_000);

// The real processes with simulated hosts. `npm run bench -- attack` measures times, also with real hosts.
it('attack: a tenant at all its limits and strangers cut no stream of another tenant, whose creates answer 201', async () => {
  const tenantConnections = 200;
  const broker = await makeBrokerProcess(3, {
    BERTH_HYPERVISOR: 'simulated',
    BERTH_GATEWAY_CONNECTIONS: '500',
    BERTH_GATEWAY_TENANT_CONNECTIONS: String(tenantConnections),
    BERTH_GATEWAY_BINDING_CONNECTIONS: '120',
  });
  onTestFinished(() => broker.dispose(), 120_000);
  await broker.start();
  const result = await attack(
    await connectPlatform(broker.settings),
    {
      ...{ tenantConnections, attackerHosts: 1, rounds: 2, pingsPerRound: 50, creates: 2 },
      boots: { count: 20, planId: largerPlanId },
      fromInside: false,
    },
    () => undefined,
  );
  expect(result.created).toBe(2);
}, 240_000);
