import { toHostSpec } from '../../core/model/host-spec.ts';
import { done, requireHost, type Step } from '../step.ts';

export const start: Step = {
  name: 'start',
  description: 'Starting the virtual machine',
  async run(context) {
    await context.hypervisor.start(toHostSpec(requireHost(context)));
    return done;
  },
};
