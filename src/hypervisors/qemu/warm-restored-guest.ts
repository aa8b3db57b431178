import { setTimeout as delay } from 'node:timers/promises';
import type { HostSpec } from '../../core/hypervisor/host-spec.ts';
import { HypervisorError } from '../../core/hypervisor/hypervisor-error.ts';
import { enginePort } from '../../core/hypervisor/network.ts';
import type { QemuDeps } from './deps.ts';
import { takesShape } from './grow-host.ts';
import type { HostRecord } from './host-record.ts';
import { engineAnswers } from './engine/engine.ts';
import { identifyGuest } from './identify-guest.ts';
import type { HostLayout } from './layout.ts';
import { engineTimeoutMs } from './timeouts.ts';

/** A restored guest that has not answered by then is of no use to the pool. */
const timeoutMs = 60_000;
const pollMs = 50;

/**
 * Makes a restored guest and its engine answer once before the host is parked: a first answer takes several times as
 * long as later ones, and no tenant waits yet. The engine is reached as any tenant's, with no port published and no
 * egress, and disconnected again. (template/warm-up-engine.ts warms the engine before the template is frozen.)
 * @throws HypervisorError if either does not answer in time.
 */
export async function warmRestoredGuest(
  { vms, network, recordedRules }: Pick<QemuDeps, 'vms' | 'network' | 'recordedRules'>,
  at: HostLayout,
  { hostId, publishedPorts }: HostSpec,
  record: HostRecord,
): Promise<void> {
  const noPorts = { first: publishedPorts.first, count: 0 };
  const deadline = performance.now() + timeoutMs;
  const until = async (answers: () => Promise<boolean>) => {
    while (!(await answers())) {
      await vms.requireAlive(at);
      if (performance.now() > deadline) throw new HypervisorError(`host ${hostId} does not answer`);
      await delay(pollMs);
    }
  };
  await until(() => identifyGuest(at, { hostId, publishedPorts }));
  if (record.growing !== undefined) await until(() => takesShape({ vms }, at, record));
  await network.connect(at, noPorts, { kind: 'none' }, noPorts);
  await until(() => engineAnswers({ host: at.hostAddress, port: enginePort }, engineTimeoutMs));
  await network.disconnect(at, noPorts);
  await recordedRules.write(at, await network.rules(at));
}
