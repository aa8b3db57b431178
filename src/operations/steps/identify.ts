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

/** The same for a VM that may have ended, as one whose guest has crashed. */
export async function startAndIdentify(context: StepContext, spec: HostSpec): Promise<StepOutcome> {
  await context.hypervisor.start(spec);
  return identifyAndConfigure(context, spec);
}

export const identify: Step = {
  name: 'identify',
  description: 'Waiting for the virtual machine, and giving it its identity',
  waits: true,
  run: (context) => identifyAndConfigure(context, toHostSpec(requireHost(context))),
  beforeRetry: (context) => startAndIdentify(context, toHostSpec(requireHost(context))),
};
