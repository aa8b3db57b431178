import type { Plan } from '../core/catalog/catalog.ts';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { Logger } from '../lib/logger.ts';
import { createBackoff } from './backoff.ts';

/** Milliseconds. Making a template takes minutes of a processor. */
const pauses = { firstPauseMs: 5 * 60_000, longestPauseMs: 60 * 60_000 };

/**
 * Makes the templates that are missing or have turned out to be bad, one after the other, in the background.
 * @param deps.report receives the progress as text for people.
 * @param deps.onTried is called after each plan whose template was there, was made, or could not be made.
 * @param deps.signal aborts the template in progress; it is not an error then.
 */
export function createTemplateMaker(deps: {
  readonly hypervisor: Pick<Hypervisor, 'makeTemplate'>;
  readonly plans: readonly Plan[];
  readonly report: (progress: string) => void;
  readonly onTried: () => void;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}): { runOnce(): Promise<void> } {
  const { hypervisor, plans, logger, signal } = deps;
  const isAborted = () => signal.aborted;
  const backoff = createBackoff({
    message:
      'A template could not be made; hosts of this plan boot cold, and it is tried again after a pause that grows to 1 h',
    subject: 'plan',
    logger,
    ...pauses,
  });
  return {
    async runOnce() {
      for (const { name, shape } of plans.filter(({ fromTemplate }) => fromTemplate)) {
        if (isAborted()) return;
        if (!backoff.isDue(name)) continue;
        const report = (progress: string) => {
          deps.report(`template ${name}: ${progress}`);
        };
        try {
          await hypervisor.makeTemplate({ planName: name, shape }, report, signal);
          backoff.succeeded(name);
        } catch (error) {
          if (isAborted()) return;
          backoff.failed(name, error);
        }
        deps.onTried();
      }
    },
  };
}
