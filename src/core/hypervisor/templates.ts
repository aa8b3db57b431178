import type { HostSpec } from './host-spec.ts';

/** Makes the template that hosts are restored from, and parks restored hosts for the pool. */
export interface Templates {
  /** Whether a new host of this plan would be restored from the template instead of booted cold. */
  hasTemplate(plan: Pick<HostSpec, 'planName' | 'shape'>): Promise<boolean>;

  /**
   * Makes the template of the newest installed image if it is missing, and that image the current one. One template serves all
   * plans, and is as small as a host can be; what a plan has more is added to each restored host. Takes minutes; a call that is
   * aborted or killed leaves no unfinished template behind that could be used. Repeated now and then, it removes what former
   * images have left.
   * @param report receives the progress as text for people.
   * @throws HypervisorError if it can't be made; the former image stays current.
   */
  makeTemplate(report: (progress: string) => void, signal: AbortSignal): Promise<void>;

  /**
   * Restores a prepared host from the template, gives it its plan's size, and pauses it for the pool: no tenant has used it, and nothing
   * can reach it. {@link Lifecycle.start} claims it. A second call verifies that the host is still parked, and restores
   * it again if its VM has ended.
   * @returns false if the host can't be parked: its plan has no template, the host comes from an older template, or it
   *   has been started. The pool then destroys it.
   * @throws HypervisorError if the host is not prepared.
   */
  park(spec: HostSpec): Promise<boolean>;
}
