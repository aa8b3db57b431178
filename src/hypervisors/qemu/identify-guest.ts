import type { HostSpec } from '../../core/hypervisor/host-spec.ts';
import { createGuestAgent } from '../../guest/agent.ts';
import { createGuestIdentity } from '../../guest/identity.ts';
import type { HostLayout } from './layout.ts';
import { agentTimeoutMs, publishTimeoutMs } from './timeouts.ts';

/**
 * Gives a guest its identity, and its engine the ports that it may publish.
 * @returns false if the guest does not answer, or its engine is starting.
 */
export async function identifyGuest(
  at: HostLayout,
  { hostId, publishedPorts }: Pick<HostSpec, 'hostId' | 'publishedPorts'>,
): Promise<boolean> {
  const agent = createGuestAgent(at.agentSocket);
  const identified = await agent.identify(createGuestIdentity(hostId), publishedPorts, agentTimeoutMs);
  if (identified === undefined) return false;
  return identified.published || (await agent.publish(publishedPorts, publishTimeoutMs));
}
