import { HostDisputedError } from '../core/hypervisor/host-disputed-error.ts';
import type { ObservedHost } from '../core/hypervisor/lifecycle.ts';
import type { Logger } from '../lib/logger.ts';

/**
 * How a driver looks at one host, without failing on one whose record can't be read: that one is reported as
 * `unreadable`, and logged once per process.
 * @param observe looks at a host whose record can be read.
 * @param slotByDisk tells the slot of any other.
 */
export function createHostObserver(
  observe: (hostId: string) => Promise<ObservedHost>,
  slotByDisk: (hostId: string) => Promise<number | undefined>,
  logger: Logger | undefined,
): (hostId: string) => Promise<ObservedHost> {
  const logged = new Set<string>();
  return async (hostId) => {
    try {
      const host = await observe(hostId);
      logged.delete(hostId);
      return host;
    } catch (error) {
      if (!(error instanceof HostDisputedError)) throw error;
      if (!logged.has(hostId)) {
        logger?.error(
          { host: hostId, err: error },
          'The record of a host is unreadable; the host is left as it is until an operator restores the file or removes the host',
        );
      }
      logged.add(hostId);
      const slot = await slotByDisk(hostId);
      return { hostId, state: 'unreadable', owner: undefined, slot, parked: false, hasRun: true };
    }
  };
}
