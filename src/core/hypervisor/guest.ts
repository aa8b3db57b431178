import type { HostSpec } from './host-spec.ts';

/** What Berth says to the guest of a host and to its Docker engine. */
export interface Guest {
  /**
   * Gives the guest its own identity: reseeds its random number generator, and sets clock, hostname, machine-id, boot
   * id and engine id. Called after every start and resume, before {@link Network.connect}. A guest that has its identity
   * only gets the time and more entropy. Each time, the engine gets the spec's published ports, of which it picks random
   * ones for containers.
   * @returns false if the guest does not answer yet, or is paused or parked: ask again later.
   * @throws HypervisorError if no VM runs.
   */
  identify(spec: HostSpec): Promise<boolean>;

  /**
   * Corrects the guest's clock by measuring how far it is from the node's. Called twice a minute while the host runs.
   * @returns false if the guest does not answer now.
   * @throws HypervisorError if no VM runs.
   */
  correctClock(spec: HostSpec): Promise<boolean>;

  /**
   * Gives the running engine the registries of the spec, without touching containers. A cold boot forgets them.
   * @returns false if the engine can't be configured yet: ask again later.
   * @throws HypervisorError if no VM runs.
   */
  configureRegistries(spec: HostSpec): Promise<boolean>;

  /**
   * Whether the engine answers `GET /_ping` now.
   * @throws HypervisorError if no VM runs.
   */
  engineAnswers(spec: HostSpec): Promise<boolean>;

  /**
   * Number of containers that run on the host.
   * @throws HypervisorError if the engine does not answer.
   */
  runningContainers(spec: HostSpec): Promise<number>;

  /**
   * Starts the containers that ran when {@link Lifecycle.stop} was last called, whatever their restart policies. A
   * container that can't be started is logged and skipped.
   * @returns false if some are left to start, or the engine does not answer: call again.
   * @throws HypervisorError if no VM runs while some are left.
   */
  restartContainers(hostId: string): Promise<boolean>;
}
