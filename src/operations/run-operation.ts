import { setTimeout as delay } from 'node:timers/promises';
import type { Hypervisor } from '../core/hypervisor.ts';
import type { Logger } from '../core/logger.ts';
import type { LeasedOperation } from '../core/model.ts';
import { operationPlans } from '../core/operations/plans.ts';
import type { Revocations, Step, StepOutcome } from '../core/operations/step.ts';
import type { Progress, Store } from '../core/store.ts';

/** What an operation is run with. */
export interface RunParts {
  readonly store: Store;
  readonly hypervisor: Hypervisor;
  readonly revocations: Revocations;
  readonly logger: Logger;
}

/** Up to here a worker keeps an operation in hand while it waits; beyond, others may have it. Milliseconds. */
const shortWaitMs = 1_000;
const longestBackoffMs = 30_000;

/**
 * Runs a leased operation from the step on record until it ends, pauses, or is taken over by another.
 * @param leave aborts between two steps: the operation is put down for the next worker.
 */
export async function runOperation(
  parts: RunParts,
  operation: LeasedOperation,
  leave: AbortSignal,
): Promise<void> {
  const { store, logger } = parts;
  const plan = operationPlans[operation.kind];
  let { failure, attempts } = operation;
  let steps = failure === undefined ? plan.steps : plan.undo;
  let index = Math.max(
    0,
    steps.findIndex((step) => step.name === operation.step),
  );

  const progress = (step: Step): Progress => ({
    step: step.name,
    description: failure === undefined ? step.description : `${step.description} (${failure})`,
    failure,
    attempts,
  });
  const giveUp = (reason: string) => {
    failure = reason;
    attempts = 0;
    steps = plan.undo;
    index = 0;
  };

  for (;;) {
    if (failure === undefined && Date.now() > operation.deadline.getTime()) {
      giveUp(`It could not end in time; it stood at: ${steps[index]?.description ?? 'the end'}`);
    }
    const step = steps[index];
    if (step === undefined) break;
    if (leave.aborted) {
      await store.records.pauseOperation(operation, { ...progress(step), afterMs: 0 });
      return;
    }
    if (!(await store.records.recordProgress(operation, progress(step)))) return;

    let outcome: StepOutcome;
    try {
      outcome = await runStep(parts, operation, step);
    } catch (error) {
      attempts += 1;
      const reason = error instanceof Error ? error.message : String(error);
      logger.warn({ operation: operation.id, step: step.name, attempts, err: error }, 'A step failed');
      if (failure === undefined && attempts >= plan.attempts) {
        giveUp(`${step.description} failed: ${reason}`);
        continue;
      }
      // An undo has no other way out than to be tried again.
      const afterMs = Math.min(longestBackoffMs, 250 * 2 ** attempts);
      await store.records.pauseOperation(operation, { ...progress(step), afterMs });
      return;
    }
    if (outcome.kind === 'done') {
      attempts = 0;
      index += 1;
    } else if (outcome.afterMs > shortWaitMs) {
      await store.records.pauseOperation(operation, { ...progress(step), afterMs: outcome.afterMs });
      return;
    } else {
      await delay(outcome.afterMs, undefined, { signal: leave }).catch(() => undefined);
    }
  }

  const state = failure === undefined ? 'succeeded' : 'failed';
  await store.records.finishOperation(operation, {
    state,
    description:
      failure ?? plan.closing?.(await store.records.hostOfInstance(operation.instanceId)) ?? 'Done',
    instance: plan.instanceAfter[state],
  });
  logger.info({ operation: operation.id, kind: operation.kind, state, failure }, 'An operation has ended');
}

async function runStep(parts: RunParts, operation: LeasedOperation, step: Step): Promise<StepOutcome> {
  const { store, hypervisor, revocations } = parts;
  const host = await store.records.hostOfInstance(operation.instanceId);
  return step.run({ operation, host, store, hypervisor, revocations });
}
