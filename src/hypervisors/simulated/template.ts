import { setTimeout as delay } from 'node:timers/promises';
import type { HostSpec } from '../../core/hypervisor/host-spec.ts';
import type { Driver } from '../../core/hypervisor/hypervisor.ts';
import type { HostFiles } from './host-files.ts';

/** The driver's template: a file that names the image. */
export function createSimulatedTemplate(
  files: HostFiles,
  options: {
    readonly imageVersion: string;
    readonly makingMs: number;
    readonly restoredPlans: ReadonlySet<string> | undefined;
  },
): Pick<Driver, 'hasTemplate' | 'makeTemplate'> & {
  /** Whether a host that has never run can be restored from it. */
  fits(spec: HostSpec): Promise<boolean>;
} {
  const { imageVersion, makingMs, restoredPlans } = options;
  const isMade = async () => (await files.readTemplate())?.imageVersion === imageVersion;
  const hasTemplate: Driver['hasTemplate'] = async ({ planName }) =>
    (restoredPlans?.has(planName) ?? true) && (await isMade());
  return {
    hasTemplate,

    async makeTemplate(report, signal) {
      signal.throwIfAborted();
      if (await isMade()) return;
      report('Making the simulated template');
      await delay(makingMs, undefined, { signal });
      await files.writeTemplate({ imageVersion });
    },

    async fits(spec) {
      const version = (await files.readHost(spec.hostId))?.spec.imageVersion;
      return version === imageVersion && (await hasTemplate(spec));
    },
  };
}
