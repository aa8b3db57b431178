import type { HostSpec } from '../../core/hypervisor/host-spec.ts';
import { done, retryAfter, type Step, type StepContext } from '../step.ts';
import { grow } from './grow.ts';
import { type HostUpdate, hostUpdateOf } from './host-update.ts';
import { identifyAgain, identifyAndConfigure } from './identify.ts';
import { noteOwner } from './note-owner.ts';
import { guestPollMs } from './poll-intervals.ts';
import { restartContainers } from './restart-containers.ts';

/**
 * The steps that change a host to what `specOf` says, and restart its VM if necessary.
 * @param reasonOf why it is restarted, for people.
 */
function restartSteps(
  activity: string,
  specOf: (update: HostUpdate) => HostSpec,
  reasonOf: (update: HostUpdate) => string,
): readonly Step[] {
  /** Measured in each step: `grow` may have done everything, or a part, and a rollback undoes what it has done. */
  const mustRestart = async ({ hypervisor }: StepContext, update: HostUpdate) =>
    update.changesImage || !(await hypervisor.hasShape(specOf(update)));
  return [
    {
      name: 'stop',
      description: `${activity}: comparing the virtual machine with its plan`,
      waits: true,
      async run(context) {
        const { store, hypervisor } = context;
        const update = hostUpdateOf(context);
        if (!(await mustRestart(context, update))) return done;
        await context.announce(`${activity}: restarting the virtual machine, since ${reasonOf(update)}`);
        await store.records.setHostUnreachable(update.host.id);
        await hypervisor.stop(update.host.id);
        return done;
      },
    },
    {
      name: 'reshape',
      description: `${activity}: changing the virtual machine`,
      async run(context) {
        const update = hostUpdateOf(context);
        if (await mustRestart(context, update)) await context.hypervisor.reshape(specOf(update));
        return done;
      },
    },
    {
      name: 'start',
      description: `${activity}: starting the virtual machine if it does not run`,
      // It may have ended, or be paused or suspended, although the update needs no restart.
      async run(context) {
        const spec = specOf(hostUpdateOf(context));
        await context.hypervisor.prepare(spec);
        await context.hypervisor.start(spec);
        return done;
      },
    },
    {
      name: 'identify',
      description: `${activity}: waiting for the virtual machine`,
      waits: true,
      run: (context) => identifyAndConfigure(context, specOf(hostUpdateOf(context))),
      beforeRetry: (context) => context.hypervisor.start(specOf(hostUpdateOf(context))),
    },
    {
      name: 'connect',
      description: `${activity}: waiting for the Docker engine to answer`,
      waits: true,
      afterBoot: true,
      beforeRetry: (context) => context.hypervisor.start(specOf(hostUpdateOf(context))),
      async run(context) {
        const { hypervisor, store } = context;
        const update = hostUpdateOf(context);
        const spec = specOf(update);
        const identified = await identifyAgain(context, spec);
        if (identified.kind !== 'done') return identified;
        const engine = await hypervisor.connect(spec);
        if (!(await hypervisor.engineAnswers(spec))) return retryAfter(guestPollMs);
        await noteOwner(context, spec);
        await store.records.setHostRunning(update.host.id, {
          engine,
          startedFrom: await hypervisor.startedFrom(update.host.id),
          imageVersion: update.host.imageVersion ?? (await hypervisor.imageVersionOf(update.host.id)),
        });
        return done;
      },
    },
    restartContainers,
  ];
}

/** From the recorded host to the operation's target, which is recorded when the operation ends. */
export const updateSteps: readonly Step[] = [
  grow,
  ...restartSteps(
    'Updating',
    ({ next }) => next,
    ({ restartReason }) => restartReason ?? 'it does not have its size yet',
  ),
];

/** Back to the recorded host. A disk that has grown stays so: only the usage counts the plan's smaller size. */
export const updateRollback = restartSteps(
  'Rolling back',
  ({ current }) => current,
  () => 'it returns to what it was',
);
