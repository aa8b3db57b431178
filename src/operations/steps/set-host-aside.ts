import { randomUUID } from 'node:crypto';
import type { HostDisputedError } from '../../core/hypervisor/host-disputed-error.ts';
import type { Host } from '../../core/model/host.ts';
import { errorMessage } from '../../lib/error-message.ts';
import type { StepContext } from '../step.ts';

/** Sets aside a host that is not the instance's by its own record. It is left as it is, for an operator to decide. */
export async function setHostAside(
  { store, logger, operation }: StepContext,
  host: Host,
  error: HostDisputedError,
): Promise<void> {
  if (!(await store.records.setHostAside(host, errorMessage(error)))) return;
  logger.error(
    { operation: operation.id, host: host.id, instance: host.instanceId, err: error },
    "A host was set aside: by its own record it is not the operation's instance's; it is left as it is until an operator decides",
  );
}

/**
 * Sets the host aside and gives the instance a new one: others of the pool may be wrong too.
 * @throws Error if no slot is free for it; the host is then not set aside.
 */
export async function replaceHost(
  { store, logger, operation }: StepContext,
  host: Host,
  error: HostDisputedError,
): Promise<void> {
  const next = await store.transaction(async (records) => {
    if (!(await records.setHostAside(host, errorMessage(error)))) return undefined;
    const other = await records.insertNewHost({
      ...host,
      id: randomUUID(),
      publishedPorts: host.publishedPorts.count,
    });
    if (other === undefined) throw new Error(`No slot is free for another host than ${host.id}`);
    return other;
  });
  if (next === undefined) return;
  logger.error(
    { operation: operation.id, host: host.id, instead: next.id, instance: host.instanceId, err: error },
    'A host was set aside: it is not what its row says; it is left as it is until an operator decides, and the create continues with another host',
  );
}
