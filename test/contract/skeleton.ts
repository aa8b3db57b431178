import type { Capabilities } from '../../src/core/hypervisor/capabilities.ts';
import { HypervisorError } from '../../src/core/hypervisor/hypervisor-error.ts';
import type { Driver, Hypervisor } from '../../src/core/hypervisor/hypervisor.ts';
import type { HostLocks } from '../../src/hypervisors/host-locks.ts';
import { withHostLocks } from '../../src/hypervisors/with-host-locks.ts';

/** The driver skeleton of docs/drivers.md. It compiles, states no capability, and refuses whatever it can't do yet. */
export function createSkeletonHypervisor(locks: HostLocks): Hypervisor {
  return withHostLocks(createSkeletonDriver(), locks);
}

const capabilities: Capabilities = {
  pause: false,
  suspend: false,
  templates: false,
  park: false,
  egress: ['none'],
  publishedPorts: false,
  diskGrowth: false,
  liveGrowth: { vcpus: false, memory: false, disk: false },
  traffic: false,
  imageUpgrade: false,
};

const missing = (method: string) => () =>
  Promise.reject(new HypervisorError(`the skeleton driver can't ${method} yet`));
const nothing = () => Promise.resolve();

function createSkeletonDriver(): Driver {
  return {
    // A new driver's own name, once it is added to Driver.name.
    name: 'simulated',
    capabilities,
    open: nothing,
    close: nothing,

    // Lifecycle. `stop` and `destroy` succeed for a host that does not exist.
    prepare: missing('prepare'),
    start: missing('start'),
    stop: nothing,
    reshape: missing('reshape'),
    grow: missing('grow'),
    hasShape: missing('hasShape'),
    destroy: nothing,
    recordOwner: nothing,
    list: () => Promise.resolve([]),
    startedFrom: missing('startedFrom'),
    imageVersionOf: missing('imageVersionOf'),

    // Power
    pause: missing('pause'),
    suspend: missing('suspend'),
    resume: missing('resume'),
    traffic: missing('traffic'),

    // Guest: false means "not yet, ask again".
    identify: missing('identify'),
    correctClock: missing('correctClock'),
    configureRegistries: missing('configureRegistries'),
    engineAnswers: missing('engineAnswers'),
    runningContainers: missing('runningContainers'),
    restartContainers: () => Promise.resolve(true),

    // Network
    connect: missing('connect'),
    repairNode: () => Promise.resolve({ altered: [], foreign: [] }),

    // Integrity
    verify: missing('verify'),
    quarantine: nothing,
    release: nothing,

    // Images
    imageVersion: () => '0.0.0',
    installImage: nothing,

    // Templates
    hasTemplate: () => Promise.resolve(false),
    makeTemplate: missing('makeTemplate'),
    park: missing('park'),

    // Metering
    memoryUsage: () => Promise.resolve(undefined),
    processorTimes: () => Promise.resolve(new Map()),
    setProcessorWeights: nothing,

    // Run state
    haltOf: () => Promise.resolve(undefined),
    halt: missing('halt'),
    diskSpace: () => Promise.resolve(undefined),
  };
}
