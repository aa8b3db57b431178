import { HostDisputedError } from '../../core/hypervisor/host-disputed-error.ts';
import { toHostSpec } from '../../core/model/host-spec.ts';
import { done, type Step } from '../step.ts';
import { setHostAside } from './set-host-aside.ts';

export const destroy: Step = {
  name: 'destroy',
  description: 'Destroying the virtual machine and wiping its disk',
  async run(context) {
    const { host, store, hypervisor } = context;
    if (host === undefined) return done;
    try {
      await hypervisor.destroy(toHostSpec(host));
    } catch (error) {
      if (!(error instanceof HostDisputedError)) throw error;
      // It is, or may be, another instance's.
      await setHostAside(context, host, error);
      return done;
    }
    // Last: until then the host can be found by its row.
    await store.records.setHostDestroyed(host.id);
    return done;
  },
};
