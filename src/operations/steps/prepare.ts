import { HostDisputedError } from '../../core/hypervisor/host-disputed-error.ts';
import { toHostSpec } from '../../core/model/host-spec.ts';
import { done, requireHost, retryAfter, type Step } from '../step.ts';
import { replaceHost } from './set-host-aside.ts';

/** How soon an operation that waits for the image looks for it again, in milliseconds. */
const imagePollMs = 2_000;

export const prepare: Step = {
  name: 'prepare',
  description: 'Making the disk and the network',
  async run(context) {
    await context.hypervisor.prepare(toHostSpec(requireHost(context)));
    return done;
  },
};

/** For an instance that has not had a host yet: if the host turns out to be another's, it gets another one. */
export const prepareAny: Step = {
  ...prepare,
  async run(context) {
    if (context.hypervisor.imageVersion() === undefined) {
      return retryAfter(imagePollMs, 'Waiting for the guest image, which is being built');
    }
    try {
      return await prepare.run(context);
    } catch (error) {
      if (!(error instanceof HostDisputedError)) throw error;
      await replaceHost(context, requireHost(context), error);
      return retryAfter(0);
    }
  },
};
