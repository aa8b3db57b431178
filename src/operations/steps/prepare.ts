import { toHostSpec } from '../../core/model/host-spec.ts';
import { done, requireHost, type Step } from '../step.ts';

export const prepare: Step = {
  name: 'prepare',
  description: 'Making the disk and the network',
  async run(context) {
    await context.hypervisor.prepare(toHostSpec(requireHost(context)));
    return done;
  },
};
