import { isDeepStrictEqual } from 'node:util';
import type { HostSpec } from '../../core/hypervisor/host-spec.ts';
import { toHostSpec } from '../../core/model/host-spec.ts';
import type { Host } from '../../core/model/host.ts';
import type { Operation, UpdateTarget } from '../../core/model/operation.ts';
import { done, requireHost, retryAfter, type Step, type StepContext } from '../step.ts';
import { identifyAndConfigure } from './identify.ts';
import { noteOwner } from './note-owner.ts';
import { guestPollMs } from './poll-intervals.ts';
import { restartContainers } from './restart-containers.ts';

/** A host before and after an update. */
interface HostUpdate {
  readonly host: Host;
  readonly current: HostSpec;
  readonly next: HostSpec;
  /** Whether the VM has to restart: its shape or its image changes, and not only its surroundings. */
  readonly restarts: boolean;
}

function hostUpdateOf(context: StepContext): HostUpdate {
  const { operation } = context;
  const { target } = operation;
  if (target === undefined) throw new Error(`operation ${operation.id} has no target`);
  const host = requireHost(context);
  const current = toHostSpec(host);
  return { host, current, next: applyTarget(current, target), restarts: needsRestart(host, target) };
}

function applyTarget(spec: HostSpec, target: UpdateTarget): HostSpec {
  return {
    ...spec,
    planName: target.planName,
    shape: target.shape,
    publishedPorts: { first: spec.publishedPorts.first, count: target.publishedPorts },
    egress: target.egress,
    registries: target.registries,
    ...(target.imageVersion !== undefined && { imageVersion: target.imageVersion }),
  };
}

function needsRestart(host: Host, target: UpdateTarget): boolean {
  return (
    !isDeepStrictEqual(host.shape, target.shape) ||
    (target.imageVersion !== undefined && target.imageVersion !== host.imageVersion)
  );
}

/** Whether an update boots the VM: it restarts it, or the VM is known to have ended. */
export const mayBootIn = (host: Host, { target }: Pick<Operation, 'target'>): boolean =>
  host.engine === undefined || (target !== undefined && needsRestart(host, target));

/** The steps that change a host to what `specOf` says, and restart its VM if necessary. */
function restartSteps(specOf: (update: HostUpdate) => HostSpec, activity: string): readonly Step[] {
  const ifRestarts = (
    run: (context: StepContext, update: HostUpdate) => ReturnType<Step['run']>,
  ): Step['run'] => {
    return async (context) => {
      const update = hostUpdateOf(context);
      return update.restarts ? run(context, update) : done;
    };
  };
  return [
    {
      name: 'stop',
      description: `${activity}: stopping the virtual machine`,
      waits: true,
      run: ifRestarts(async ({ store, hypervisor }, { host }) => {
        await store.records.setHostUnreachable(host.id);
        await hypervisor.stop(host.id);
        return done;
      }),
    },
    {
      name: 'reshape',
      description: `${activity}: changing the virtual machine`,
      run: ifRestarts(async ({ hypervisor }, update) => {
        await hypervisor.reshape(specOf(update));
        return done;
      }),
    },
    {
      name: 'start',
      description: `${activity}: starting the virtual machine from its own disk`,
      // Also if the update needs no restart: the VM may have ended, or be paused or suspended.
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
    },
    {
      name: 'connect',
      description: `${activity}: waiting for the Docker engine to answer`,
      waits: true,
      afterBoot: true,
      async run(context) {
        const { hypervisor, store } = context;
        const update = hostUpdateOf(context);
        const spec = specOf(update);
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
export const updateSteps = restartSteps(({ next }) => next, 'Updating');

/** Back to the recorded host. A disk that has grown stays so: only the usage counts the plan's smaller size. */
export const updateRollback = restartSteps(({ current }) => current, 'Rolling back');
