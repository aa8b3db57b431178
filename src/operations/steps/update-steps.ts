import { isDeepStrictEqual } from 'node:util';
import type { HostSpec } from '../../core/hypervisor/host-spec.ts';
import type { Host } from '../../core/model/host.ts';
import type { UpdateTarget } from '../../core/model/operation.ts';
import { toHostSpec } from '../../core/model/host-spec.ts';
import { guestPollMs, identifyAndConfigure, requireHost, restartContainers } from './host-steps.ts';
import { retryAfter, done, type Step, type StepContext } from '../step.ts';

/** The host as it is on record, and as it is to become. */
interface Aim {
  readonly host: Host;
  readonly now: HostSpec;
  readonly next: HostSpec;
  /** Whether the machine has to be started anew: what it is made of changes, and not only what is around it. */
  readonly restarts: boolean;
}

function aimOf(context: StepContext): Aim {
  const { operation } = context;
  const { target } = operation;
  if (target === undefined) throw new Error(`operation ${operation.id} has no target`);
  const host = requireHost(context);
  const now = toHostSpec(host);
  return { host, now, next: towards(now, target), restarts: needsRestart(host, target) };
}

function towards(spec: HostSpec, target: UpdateTarget): HostSpec {
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

/** The steps that make a machine anew out of what it was, or back. */
function remake(specOf: (aim: Aim) => HostSpec, words: string): readonly Step[] {
  const where = (run: (context: StepContext, aim: Aim) => ReturnType<Step['run']>): Step['run'] => {
    return async (context) => {
      const aim = aimOf(context);
      return aim.restarts ? run(context, aim) : done;
    };
  };
  return [
    {
      name: 'stop',
      description: `${words}: stopping the virtual machine`,
      waits: true,
      run: where(async ({ store, hypervisor }, { host }) => {
        await store.records.setHostUnreachable(host.id);
        await hypervisor.stop(host.id);
        return done;
      }),
    },
    {
      name: 'reshape',
      description: `${words}: changing the virtual machine`,
      run: where(async ({ hypervisor }, aim) => {
        await hypervisor.reshape(specOf(aim));
        return done;
      }),
    },
    {
      name: 'start',
      description: `${words}: starting the virtual machine from its own disk`,
      // Also where it is not restarted: it may have ended, or stand still.
      async run(context) {
        const spec = specOf(aimOf(context));
        await context.hypervisor.prepare(spec);
        await context.hypervisor.start(spec);
        return done;
      },
    },
    {
      name: 'identify',
      description: `${words}: waiting for the virtual machine`,
      waits: true,
      run: (context) => identifyAndConfigure(context, specOf(aimOf(context))),
    },
    {
      name: 'connect',
      description: `${words}: waiting for the Docker engine to answer`,
      waits: true,
      async run(context) {
        const { hypervisor, store } = context;
        const aim = aimOf(context);
        const spec = specOf(aim);
        const engine = await hypervisor.connect(spec);
        if (!(await hypervisor.engineAnswers(spec))) return retryAfter(guestPollMs);
        await store.records.setHostRunning(aim.host.id, {
          engine,
          startedFrom: await hypervisor.startedFrom(aim.host.id),
          imageVersion: aim.host.imageVersion ?? (await hypervisor.imageVersionOf(aim.host.id)),
        });
        return done;
      },
    },
    restartContainers,
  ];
}

/** From the host as it is on record to what the operation aims at; what it has come to is recorded at its end. */
export const updateSteps = remake(({ next }) => next, 'Updating');

/** Back to the host as it is on record. A disk that has grown stays so: the plan's smaller size is only counted. */
export const updateRollback = remake(({ now }) => now, 'Going back');
