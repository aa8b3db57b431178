import { attack } from '../../lib/attack/attack.ts';
import { connectPlatform } from '../../lib/platform.ts';
import { startBroker } from '../lib/broker.ts';
import { type Figure, figure } from '../lib/figures.ts';

const plan = (id: string, more: object) => ({
  ...{ id, name: id, description: 'Measured by the bench', free: true },
  host: { vcpus: 1, memory_mib: 768, disk_gib: 4, published_ports: 2 },
  ...more,
});
const catalog = {
  offerings: [
    {
      ...{ id: 'bench', name: 'container-host', description: 'Measured by the bench' },
      plans: [plan('template', {}), plan('cold', { template: 'never' })],
    },
  ],
};
const tenantConnections = 300;

/**
 * One tenant at the limits of its connections, boots, disk writes and flows, and strangers with handshakes beside it: what
 * another tenant sees.
 */
export async function attackSuite(
  options: { simulated: boolean; cacheDirectory: string },
  progress: (line: string) => void,
): Promise<readonly Figure[]> {
  const broker = await startBroker(catalog, options.cacheDirectory, progress, {
    ...(options.simulated && { BERTH_HYPERVISOR: 'simulated' }),
    BERTH_GATEWAY_CONNECTIONS: '1000',
    BERTH_GATEWAY_TENANT_CONNECTIONS: String(tenantConnections),
    BERTH_GATEWAY_HOST_CONNECTIONS: '200',
    BERTH_GATEWAY_BINDING_CONNECTIONS: '100',
  });
  try {
    const result = await attack(
      await connectPlatform(broker.settings),
      {
        ...{ tenantConnections, attackerHosts: 2, rounds: 5, pingsPerRound: 200, creates: 5 },
        fromInside: !options.simulated,
        boots: { count: 4, planId: 'cold' },
      },
      progress,
    );
    return [
      figure('attack.ping.quiet_p50_ms', result.quietPingMs, 'ms'),
      figure('attack.ping.paused_p50_ms', result.pausedPingMs, 'ms'),
      figure('attack.ping.attacked_p50_ms', result.attackedPingMs, 'ms'),
      figure('attack.ping.attacked_over_quiet', result.attackedPingMs / result.quietPingMs, 'ratio'),
      figure('attack.create.quiet_p50_ms', result.quietCreateMs, 'ms'),
      figure('attack.create.attacked_p50_ms', result.attackedCreateMs, 'ms'),
      figure('attack.create.answered_201', result.created, 'of 5'),
      figure('attack.connections_of_attacker', result.attackerConnections, 'each'),
      figure('attack.attempts_of_attacker', result.attackerAttempts, 'each'),
    ];
  } finally {
    await broker.stop();
  }
}
