import type { Driver } from '../core/hypervisor/hypervisor.ts';
import type { HostSpec } from '../core/hypervisor/host-spec.ts';

/**
 * Every method of a driver, by what it is about; a method that is missing here does not compile.
 *
 * - `act`: acts on one host, or needs it to stay as it is meanwhile. Runs under the host's lock.
 * - `question`: asks about one host, and takes no lock. (`halt` acts, but must not wait for one.)
 * - `driver`: is not about one host.
 */
const methods = {
  open: 'driver',
  close: 'driver',
  list: 'driver',
  traffic: 'driver',
  imageVersion: 'driver',
  installImage: 'driver',
  hasTemplate: 'driver',
  makeTemplate: 'driver',
  diskSpace: 'driver',
  processorTimes: 'driver',
  setProcessorWeights: 'driver',
  repairNode: 'driver',

  prepare: 'act',
  start: 'act',
  stop: 'act',
  reshape: 'act',
  grow: 'act',
  destroy: 'act',
  recordOwner: 'act',
  pause: 'act',
  suspend: 'act',
  resume: 'act',
  identify: 'act',
  correctClock: 'act',
  configureRegistries: 'act',
  restartContainers: 'act',
  connect: 'act',
  verify: 'act',
  quarantine: 'act',
  release: 'act',
  park: 'act',

  hasShape: 'question',
  engineAnswers: 'question',
  runningContainers: 'question',
  startedFrom: 'question',
  imageVersionOf: 'question',
  memoryUsage: 'question',
  haltOf: 'question',
  halt: 'question',
} as const satisfies {
  readonly [Name in MethodName]:
    'driver' | (Parameters<Driver[Name]> extends [HostSpec | string] ? 'act' | 'question' : never);
};

type MethodName = {
  [Name in keyof Driver]: Driver[Name] extends (...args: never[]) => unknown ? Name : never;
}[keyof Driver];

/** A method about one host: its only argument is the host's spec or id. */
export type HostMethod = {
  [Name in MethodName]: (typeof methods)[Name] extends 'driver' ? never : Name;
}[MethodName];

/** Runs around each call; `target` is its argument, and `call` the method itself with it. */
export type Around = (
  method: HostMethod,
  target: HostSpec | string,
  call: () => Promise<unknown>,
) => Promise<unknown>;

export const hostIdOf = (target: HostSpec | string): string =>
  typeof target === 'string' ? target : target.hostId;

/** The same driver, with `around` run around each method of these kinds. */
export function decorateHostMethods(
  driver: Driver,
  kinds: readonly ('act' | 'question')[],
  around: Around,
): Driver {
  const names = (Object.keys(methods) as MethodName[]).filter((name): name is HostMethod =>
    (kinds as readonly string[]).includes(methods[name]),
  );
  const decorated = names.map((name) => {
    const method = Reflect.get(driver, name) as (target: HostSpec | string) => Promise<unknown>;
    const call = (target: HostSpec | string) => around(name, target, () => method.call(driver, target));
    return [name, call];
  });
  return { ...driver, ...(Object.fromEntries(decorated) as Pick<Driver, HostMethod>) };
}
