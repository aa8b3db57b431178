import type { Plan } from '../core/catalog/catalog.ts';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { Logger } from '../lib/logger.ts';

/**
 * Makes the templates that are missing, one after the other, in the background.
 * @param deps.signal aborts the template in progress; it is not an error then.
 */
export async function makeTemplates(deps: {
  readonly hypervisor: Pick<Hypervisor, 'makeTemplate'>;
  readonly plans: readonly Plan[];
  readonly logger: Logger;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { hypervisor, plans, logger, signal } = deps;
  const isAborted = () => signal.aborted;
  for (const { name, shape } of plans.filter(({ fromTemplate }) => fromTemplate)) {
    if (isAborted()) return;
    const report = (progress: string) => {
      logger.info({ plan: name }, progress);
    };
    try {
      await hypervisor.makeTemplate({ planName: name, shape }, report, signal);
    } catch (error) {
      if (isAborted()) return;
      logger.error(
        { plan: name, err: error },
        'A template could not be made; hosts of this plan boot cold until the worker is restarted',
      );
    }
  }
}
