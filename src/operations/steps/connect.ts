import { toHostSpec } from '../../core/model/host-spec.ts';
import { done, requireHost, retryAfter, type Step } from '../step.ts';
import { identifyAgain } from './identify.ts';
import { noteOwner } from './note-owner.ts';
import { guestPollMs } from './poll-intervals.ts';

export const connect: Step = {
  name: 'connect',
  description: 'Waiting for the Docker engine to answer',
  waits: true,
  afterBoot: true,
  beforeRetry: (context) => context.hypervisor.start(toHostSpec(requireHost(context))),
  async run(context) {
    const { hypervisor, store } = context;
    const host = requireHost(context);
    const spec = toHostSpec(host);
    const identified = await identifyAgain(context, spec);
    if (identified.kind !== 'done') return identified;
    const engine = await hypervisor.connect(spec);
    if (!(await hypervisor.engineAnswers(spec))) return retryAfter(guestPollMs);
    await noteOwner(context, spec);
    // From here on gateways find the host. The start step may have run in another process, so the driver is asked
    // what the VM was started from.
    await store.records.setHostRunning(host.id, {
      engine,
      startedFrom: await hypervisor.startedFrom(host.id),
      imageVersion: await hypervisor.imageVersionOf(host.id),
    });
    return done;
  },
};
