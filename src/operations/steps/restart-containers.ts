import { done, requireHost, retryAfter, type Step } from '../step.ts';
import { guestPollMs } from './poll-intervals.ts';

/** Needed after a restart too: an abandoned update may have left the containers stopped. */
export const restartContainers: Step = {
  name: 'containers',
  description: 'Starting the containers that ran before',
  waits: true,
  async run(context) {
    const { hypervisor } = context;
    return (await hypervisor.restartContainers(requireHost(context).id)) ? done : retryAfter(guestPollMs);
  },
};
