import type { HostSpec } from './host-spec.ts';

/** Talks to the guest of a host and to its Docker engine. */
export interface Guest {
  /**
   * Gives the guest its own identity: reseeds its random generator, sets clock, hostname, machine-id, boot
   * id and engine id. False while the guest can't be spoken to yet.
   * @throws HypervisorError where the machine has ended.
   */
  identify(spec: HostSpec): Promise<boolean>;

  /**
   * Gives the running guest's engine its registries; containers notice nothing. A cold boot forgets them. False
   * while the engine can't be told yet.
   * @throws HypervisorError where the machine has ended.
   */
  configureRegistries(spec: HostSpec): Promise<boolean>;

  /**
   * Whether the engine answers `GET /_ping`.
   * @throws HypervisorError where the machine has ended.
   */
  engineAnswers(spec: HostSpec): Promise<boolean>;

  /** How many containers run on a host. @throws HypervisorError where its engine does not tell. */
  runningContainers(spec: HostSpec): Promise<number>;

  /**
   * Starts the containers again that ran when {@link stop} was last called, whatever their restart policies. One
   * that can't be started is left alone. False while some are left, or the engine does not answer.
   */
  restartContainers(hostId: string): Promise<boolean>;
}
