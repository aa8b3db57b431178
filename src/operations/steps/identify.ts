import type { HostSpec } from '../../core/hypervisor/host-spec.ts';
import { toHostSpec } from '../../core/model/host-spec.ts';
import { done, requireHost, retryAfter, type Step, type StepContext, type StepOutcome } from '../step.ts';
import { enginePollMs, guestPollMs } from './poll-intervals.ts';

/** Gives a running guest its identity, and its engine the registry settings. */
export async function identifyAndConfigure(
  { hypervisor }: StepContext,
  spec: HostSpec,
): Promise<StepOutcome> {
  if (!(await hypervisor.identify(spec))) return retryAfter(guestPollMs);
  return (await hypervisor.configureRegistries(spec)) ? done : retryAfter(enginePollMs);
}

/** The same for a further attempt at a later step: the VM may have been started again. Done at once in the first attempt. */
export async function identifyAgain(context: StepContext, spec: HostSpec): Promise<StepOutcome> {
  return context.failures > 0 ? identifyAndConfigure(context, spec) : done;
}

export const identify: Step = {
  name: 'identify',
  description: 'Waiting for the virtual machine, and giving it its identity',
  waits: true,
  run: (context) => identifyAndConfigure(context, toHostSpec(requireHost(context))),
  // It may have ended, as one whose guest has crashed.
  beforeRetry: (context) => context.hypervisor.start(toHostSpec(requireHost(context))),
};
