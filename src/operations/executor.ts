import { setTimeout as delay } from 'node:timers/promises';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { Logger } from '../lib/logger.ts';
import type { LeasedOperation } from '../core/model/operation.ts';
import type { Workflows } from './workflows.ts';
import type { Revocations } from '../core/ports/revocations.ts';
import type { Step, StepOutcome } from './step.ts';
import type { Progress } from '../core/ports/operation-records.ts';
import type { Store } from '../core/ports/store.ts';
import type { Concurrency } from './concurrency.ts';
import { errorMessage } from '../lib/error-message.ts';

/** What an operation is run with. */
export interface ExecutorDeps {
  readonly store: Store;
  readonly hypervisor: Hypervisor;
  readonly revocations: Revocations;
  /** What each kind of operation does. */
  readonly workflows: Workflows;
  readonly logger: Logger;
  readonly concurrency: Concurrency;
}

/** Up to here a worker keeps an operation in hand while it waits; beyond, others may have it. Milliseconds. */
const shortWaitMs = 1_000;
const longestBackoffMs = 30_000;

/** Why a course of steps came to an end: nothing is left to do here, or it goes on with another host. */
type Halt = 'over' | 'other host';

/**
 * Runs a leased operation from the step on record until it ends, pauses, or is taken over by another. All the
 * while its host is held, and each step begins with a look at the fence: so who took over finds no earlier
 * holder in the middle of an act, and who was taken over does not begin one (design: three roles).
 * @param leave aborts between two steps: the operation is put down for the next worker.
 */
export async function runOperation(
  parts: ExecutorDeps,
  operation: LeasedOperation,
  leave: AbortSignal,
): Promise<void> {
  const { store, hypervisor, workflows: plans, logger, concurrency: turns } = parts;
  const plan = plans[operation.kind];
  let { failure, attempts } = operation;
  let steps = failure === undefined ? plan.steps : plan.rollback;
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
  const isOverdue = (byMs: number) => Date.now() > operation.deadline.getTime() + byMs;
  const giveUp = (reason: string) => {
    failure = reason;
    attempts = 0;
    steps = plan.rollback;
    index = 0;
  };
  const pause = async (step: Step, afterMs: number): Promise<Halt> => {
    await store.records.rescheduleOperation(operation, { ...progress(step), afterMs });
    return 'over';
  };

  async function run(heldHostId: string | undefined): Promise<Halt> {
    for (;;) {
      if (failure === undefined && isOverdue(0)) {
        giveUp(`It could not end in time; it stood at: ${steps[index]?.description ?? 'the end'}`);
      }
      const step = steps[index];
      if (step === undefined) return finish();
      if (leave.aborted) return pause(step, 0);
      if (!(await store.records.recordProgress(operation, progress(step)))) return 'over';
      const host = await store.records.hostOfInstance(operation.instanceId);
      if (host !== undefined && host.id !== heldHostId) return 'other host';

      let outcome: StepOutcome;
      try {
        const act = () => step.run({ ...parts, operation, host });
        outcome = await (step.waits === true ? act() : turns.work(act));
      } catch (error) {
        attempts += 1;
        const reason = errorMessage(error);
        logger.warn({ operation: operation.id, step: step.name, attempts, err: error }, 'A step failed');
        if (failure === undefined && attempts >= plan.attempts) {
          giveUp(`${step.description} failed: ${reason}`);
          continue;
        }
        if (failure !== undefined && attempts >= (plan.rollbackAttempts ?? Infinity)) {
          failure = `${failure}. ${step.description} failed as well: ${reason}`;
          return finish();
        }
        // An undo has no other way out than to be tried again.
        return pause(step, Math.min(longestBackoffMs, 250 * 2 ** attempts));
      }
      if (outcome.kind === 'done') {
        attempts = 0;
        index += 1;
      } else if (
        failure !== undefined &&
        plan.rollbackBudgetMs !== undefined &&
        isOverdue(plan.rollbackBudgetMs)
      ) {
        failure = `${failure}. Nor could it be undone in time; it stood at: ${step.description}`;
        return finish();
      } else if (outcome.afterMs > shortWaitMs) {
        return pause(step, outcome.afterMs);
      } else {
        await delay(outcome.afterMs, undefined, { signal: leave }).catch(() => undefined);
      }
    }
  }

  async function finish(): Promise<Halt> {
    const state = failure === undefined ? 'succeeded' : 'failed';
    const isOurs = await store.records.finishOperation(operation, {
      state,
      description:
        failure ?? plan.summary?.(await store.records.hostOfInstance(operation.instanceId)) ?? 'Done',
      instance: plan.instanceAfter[state],
    });
    if (isOurs) {
      const { id, kind } = operation;
      logger.info({ operation: id, kind, state, failure }, 'An operation has ended');
    }
    return 'over';
  }

  let halt: Halt;
  do {
    const host = await store.records.hostOfInstance(operation.instanceId);
    if (host === undefined) halt = await run(undefined);
    else {
      const course = () => hypervisor.withHostLock(host.id, () => run(host.id));
      halt = (await plan.mayBoot?.(host, hypervisor)) === true ? await turns.boot(course) : await course();
    }
  } while (halt === 'other host');
}
