import type { HostSpec } from './host-spec.ts';
import type { HostShape } from './host-spec.ts';

/** What a template is made for. */
export interface TemplateSpec {
  readonly planName: string;
  readonly shape: HostShape;
}

/** Makes the templates that hosts are restored from, and parks restored hosts for the pool. */
export interface Templates {
  /** True where a create of this plan will be restored from a template, not booted cold. */
  hasTemplate(planName: string): Promise<boolean>;

  /**
   * Makes the template of a plan where it is missing or made from something else than what is installed.
   * @param report is told, in words for people, what is being done.
   */
  makeTemplate(plan: TemplateSpec, report: (progress: string) => void, signal: AbortSignal): Promise<void>;

  /**
   * Restores a prepared host's machine from its plan's template and holds it, for the pool: its processors stand
   * still, nobody has used it, and nothing reaches it. {@link start} lets it go. Asked again, it verifies that the host still stands so, and restores
   * anew what has ended.
   * @returns false where it can't be held: there is no template, it was made from another one than the plan's
   * present one, or it was let go. Such a host is of no use to the pool.
   */
  park(spec: HostSpec): Promise<boolean>;
}
