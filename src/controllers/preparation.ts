import type { Plan } from '../core/catalog/catalog.ts';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { PreparationState } from '../core/ports/worker-records.ts';
import { createTemplateMaker } from './templates.ts';
import { errorMessage } from '../lib/error-message.ts';
import type { Logger } from '../lib/logger.ts';

/** Of a tool's output in what operators see. Characters. */
const longestReason = 500;

/** Installs the image, and makes the template if it is missing or bad, in the background: hosts that exist need neither. */
export interface Preparation {
  state(): PreparationState;
  /** Resolves once hosts can be made: from a former image, or from the image and its template. */
  readonly ready: Promise<void>;
  /** @throws Error if the image can't be installed; tries again when it is repeated. Does nothing if everything is there. */
  runOnce(): Promise<void>;
}

/**
 * @param deps.report receives the progress as text for people.
 * @param deps.signal aborts what is in progress; it is not an error then.
 */
export function createPreparation(deps: {
  readonly hypervisor: Pick<Hypervisor, 'imageVersion' | 'installImage' | 'makeTemplate'>;
  readonly plans: readonly Plan[];
  readonly report: (progress: string) => void;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}): Preparation {
  const { hypervisor, plans, logger, signal } = deps;
  const isAborted = () => signal.aborted;
  let isInstalled = false;
  let failure: string | undefined;
  let preparing: string | undefined = 'looking for the guest image';
  let resolveReady: () => void = () => undefined;
  const ready = new Promise<void>((resolve) => {
    resolveReady = resolve;
  });
  const report = (progress: string) => {
    preparing = progress;
    deps.report(progress);
  };

  const readyIfFormerImage = () => {
    if (hypervisor.imageVersion() !== undefined) resolveReady();
  };

  const template = createTemplateMaker({
    ...{ hypervisor, plans, report, logger, signal },
    onTried: () => {
      resolveReady();
    },
  });

  const problem = () => {
    const version = hypervisor.imageVersion();
    if (failure !== undefined) {
      const next =
        version === undefined ? 'Creates wait for it' : `New hosts get the former image, ${version}`;
      return `The guest image can't be installed, and the worker tries again every minute: ${failure} ${next}.`;
    }
    if (version === undefined) return 'No guest image is installed yet: creates wait for it.';
    const reason = template.problem()?.slice(0, longestReason);
    if (reason === undefined) return undefined;
    return `The template can't be made, and the worker tries again after a pause that grows to 1 h: ${reason} New hosts are made from image ${version}, and boot cold if it has no template.`;
  };

  return {
    state: () => ({ preparing, problem: problem() }),
    ready,
    async runOnce() {
      try {
        if (!isInstalled) {
          await hypervisor.installImage((progress) => {
            readyIfFormerImage();
            report(progress);
          }, signal);
          isInstalled = true;
          failure = undefined;
        }
      } catch (error) {
        if (isAborted()) return;
        readyIfFormerImage();
        failure = errorMessage(error).slice(0, longestReason);
        preparing = undefined;
        deps.report(problem() ?? failure);
        throw error;
      }
      await template.runOnce();
      if (isAborted()) return;
      resolveReady();
      preparing = undefined;
    },
  };
}
