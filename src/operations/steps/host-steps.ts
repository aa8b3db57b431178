import type { HostSpec } from '../../core/hypervisor/host-spec.ts';
import type { Host } from '../../core/model/host.ts';
import { toHostSpec } from '../../core/model/host-spec.ts';
import { retryAfter, done, type Step, type StepContext, type StepOutcome } from '../step.ts';

/** @throws where the operation's instance has no host: a defect. */
export function requireHost({ host, operation }: StepContext): Host {
  if (host === undefined) throw new Error(`operation ${operation.id} has no host on record`);
  return host;
}

/** How soon a guest that is not there yet is asked again, in milliseconds: a restored one answers within tenths of a second. */
export const guestPollMs = 50;
/** The same of an engine that is still starting, which more questions would only slow down. */
const enginePollMs = 500;

const makeDiskAndNetwork: Step = {
  name: 'prepare',
  description: 'Making the disk and the network',
  async run(context) {
    await context.hypervisor.prepare(toHostSpec(requireHost(context)));
    return done;
  },
};

const startMachine: Step = {
  name: 'start',
  description: 'Starting the virtual machine',
  async run(context) {
    await context.hypervisor.start(toHostSpec(requireHost(context)));
    return done;
  },
};

/** Tells a running guest who it is, and its engine which registries it has. */
export async function identifyAndConfigure(
  { hypervisor }: StepContext,
  spec: HostSpec,
): Promise<StepOutcome> {
  if (!(await hypervisor.identify(spec))) return retryAfter(guestPollMs);
  return (await hypervisor.configureRegistries(spec)) ? done : retryAfter(enginePollMs);
}

const giveIdentity: Step = {
  name: 'identify',
  description: 'Waiting for the virtual machine, and giving it an identity of its own',
  waits: true,
  async run(context) {
    return identifyAndConfigure(context, toHostSpec(requireHost(context)));
  },
};

const connectAndCheck: Step = {
  name: 'connect',
  description: 'Waiting for the Docker engine to answer',
  waits: true,
  async run(context) {
    const host = requireHost(context);
    const spec = toHostSpec(host);
    const engine = await context.hypervisor.connect(spec);
    if (!(await context.hypervisor.engineAnswers(spec))) return retryAfter(guestPollMs);
    // From here on gateways find the host. How it came to run is known to the start step only if that ran in
    // this process; the machine itself is asked, so that a resumed operation records the truth as well.
    await context.store.records.setHostRunning(host.id, {
      engine,
      startedFrom: await context.hypervisor.startedFrom(host.id),
      imageVersion: await context.hypervisor.imageVersionOf(host.id),
    });
    return done;
  },
};

/** From a recorded host to an engine that answers. */
export const startSteps: readonly Step[] = [makeDiskAndNetwork, startMachine, giveIdentity, connectAndCheck];

/** Also of a host that is brought back: an update that was given up may have left them stopped. */
export const restartContainers: Step = {
  name: 'containers',
  description: 'Starting the containers that ran before',
  waits: true,
  async run(context) {
    const { hypervisor } = context;
    return (await hypervisor.restartContainers(requireHost(context).id)) ? done : retryAfter(guestPollMs);
  },
};

const revokeBindings: Step = {
  name: 'revoke',
  description: 'Revoking all credentials',
  waits: true,
  async run({ operation, store, revocations }) {
    await revocations.settled(await store.records.revokeBindingsOf(operation.instanceId));
    return done;
  },
};

const destroyHost: Step = {
  name: 'destroy',
  description: 'Destroying the virtual machine and wiping its disk',
  async run({ host, store, hypervisor }) {
    if (host === undefined) return done;
    await hypervisor.destroy(host.id);
    // Last of all: while its row stands the host can still be found.
    await store.records.setHostDestroyed(host.id);
    return done;
  },
};

/** Leaves nothing of the instance. Also what undoes a create. */
export const removeSteps: readonly Step[] = [revokeBindings, destroyHost];
