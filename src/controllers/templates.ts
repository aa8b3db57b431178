import type { Plan } from '../core/catalog/catalog.ts';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import { errorMessage } from '../lib/error-message.ts';
import type { Logger } from '../lib/logger.ts';
import { createBackoff } from './backoff.ts';

/** Milliseconds. Making the template takes minutes of a processor. */
const pauses = { firstPauseMs: 5 * 60_000, longestPauseMs: 60 * 60_000 };

/**
 * Makes the template if it is missing or has turned out to be bad, in the background. It makes none if no plan is restored
 * from it.
 * @param deps.report receives the progress as text for people.
 * @param deps.onTried is called once the template was there, was made, or could not be made.
 * @param deps.signal aborts the template in progress; it is not an error then.
 */
export function createTemplateMaker(deps: {
  readonly hypervisor: Pick<Hypervisor, 'makeTemplate'>;
  readonly plans: readonly Plan[];
  readonly report: (progress: string) => void;
  readonly onTried: () => void;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}): {
  runOnce(): Promise<void>;
  /** Why the template could not be made at the last attempt; undefined if it could, or none is needed. */
  problem(): string | undefined;
} {
  const { hypervisor, logger, signal } = deps;
  const isAborted = () => signal.aborted;
  const plans = deps.plans.filter(({ fromTemplate }) => fromTemplate);
  const planNames = plans.map(({ name }) => name).join(', ');
  const backoff = createBackoff({
    message:
      'The template could not be made; hosts of these plans get the former image, or boot cold if there is none, and it is tried again after a pause that grows to 1 h',
    subject: 'plans',
    logger,
    ...pauses,
  });
  let problem: string | undefined;
  const report = (progress: string) => {
    deps.report(`template: ${progress}`);
  };
  return {
    problem: () => problem,
    async runOnce() {
      if (plans.length === 0 || isAborted() || !backoff.isDue(planNames)) return;
      try {
        await hypervisor.makeTemplate(report, signal);
        backoff.succeeded(planNames);
        problem = undefined;
      } catch (error) {
        if (isAborted()) return;
        backoff.failed(planNames, error);
        problem = errorMessage(error);
      }
      deps.onTried();
    },
  };
}
