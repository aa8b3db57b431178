import { HypervisorError } from '../../core/hypervisor/hypervisor-error.ts';
import { done, retryAfter, type Step } from '../step.ts';
import { hostUpdateOf } from './host-update.ts';
import { guestPollMs } from './poll-intervals.ts';

/**
 * Applies an update that only adds to the host's size while it runs, so that its containers and connections go undisturbed.
 * What it can't apply is left to the next steps, which restart the host.
 */
export const grow: Step = {
  name: 'grow',
  description: 'Updating: comparing the virtual machine with its plan',
  waits: true,
  async run(context) {
    const { hypervisor, logger, operation } = context;
    const { host, current, next, changesShape, restartReason } = hostUpdateOf(context);
    // A host without an address does not run: it starts with its new size.
    if (!changesShape || restartReason !== undefined || host.engine === undefined) return done;
    await context.announce('Updating: adding CPUs, memory and disk to the running virtual machine');
    // It may be paused or suspended.
    await hypervisor.prepare(current);
    await hypervisor.start(current);
    try {
      // A driver may notice here already that the guest does not use what an earlier call has added.
      const isReady = (await hypervisor.identify(current)) && (await hypervisor.grow(next));
      return isReady ? done : retryAfter(guestPollMs);
    } catch (error) {
      if (!(error instanceof HypervisorError)) throw error;
      logger.warn(
        { operation: operation.id, host: host.id, err: error },
        'A running host could not be made larger; it is restarted instead',
      );
      return done;
    }
  },
};
