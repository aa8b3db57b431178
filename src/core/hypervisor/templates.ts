import type { HostShape, HostSpec } from './host-spec.ts';

/** The plan that a template is made for. */
export interface TemplateSpec {
  readonly planName: string;
  readonly shape: HostShape;
}

/** Makes the templates that hosts are restored from, and parks restored hosts for the pool. */
export interface Templates {
  /** Whether a new host of this plan would be restored from a template instead of booted cold. */
  hasTemplate(planName: string): Promise<boolean>;

  /**
   * Makes the plan's template if it is missing, or was made from another shape or image than the present ones. Takes
   * minutes; a call that is aborted or killed leaves no unfinished template behind that could be used.
   * @param report receives the progress as text for people.
   */
  makeTemplate(plan: TemplateSpec, report: (progress: string) => void, signal: AbortSignal): Promise<void>;

  /**
   * Restores a prepared host from its plan's template and pauses it for the pool: no tenant has used it, and nothing
   * can reach it. {@link Lifecycle.start} claims it. A second call verifies that the host is still parked, and restores
   * it again if its VM has ended.
   * @returns false if the host can't be parked: its plan has no template, the host comes from an older template, or it
   *   has been started. The pool then destroys it.
   * @throws HypervisorError if the host is not prepared.
   */
  park(spec: HostSpec): Promise<boolean>;
}
