import { done, type Step } from '../step.ts';

export const destroy: Step = {
  name: 'destroy',
  description: 'Destroying the virtual machine and wiping its disk',
  async run({ host, store, hypervisor }) {
    if (host === undefined) return done;
    await hypervisor.destroy(host.id);
    // Last: until then the host can be found by its row.
    await store.records.setHostDestroyed(host.id);
    return done;
  },
};
