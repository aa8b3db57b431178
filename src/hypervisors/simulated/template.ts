import { setTimeout as delay } from 'node:timers/promises';
import type { HostSpec } from '../../core/hypervisor/host-spec.ts';
import type { Driver } from '../../core/hypervisor/hypervisor.ts';
import type { HostFiles } from './host-files.ts';

/** The driver's template: a file that names the image and the plans. */
export function createSimulatedTemplate(
  files: HostFiles,
  { imageVersion, makingMs }: { readonly imageVersion: string; readonly makingMs: number },
): Pick<Driver, 'hasTemplate' | 'makeTemplate'> & {
  /** Whether a host that has never run can be restored from it. */
  fits(spec: HostSpec): Promise<boolean>;
} {
  const hasTemplate = async (planName: string) => {
    const template = await files.readTemplate();
    return template?.imageVersion === imageVersion && template.planNames.includes(planName);
  };
  return {
    hasTemplate,

    async makeTemplate(plans, report, signal) {
      signal.throwIfAborted();
      if ((await files.readTemplate())?.imageVersion !== imageVersion) {
        report('Making the simulated template');
        await delay(makingMs, undefined, { signal });
      }
      await files.writeTemplate({ imageVersion, planNames: plans.map(({ planName }) => planName) });
    },

    async fits({ hostId, planName }) {
      const version = (await files.readHost(hostId))?.spec.imageVersion;
      return version === imageVersion && (await hasTemplate(planName));
    },
  };
}
