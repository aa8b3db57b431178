import { done, type Step } from '../step.ts';

export const revokeBindings: Step = {
  name: 'revoke',
  description: 'Revoking all credentials',
  waits: true,
  async run({ operation, store, revocations }) {
    await revocations.settled(await store.records.revokeBindingsOf(operation.instanceId));
    return done;
  },
};
