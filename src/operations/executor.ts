import { setTimeout as delay } from 'node:timers/promises';
import { HypervisorError } from '../core/hypervisor/hypervisor-error.ts';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { Logger } from '../lib/logger.ts';
import type { Host } from '../core/model/host.ts';
import type { LeasedOperation } from '../core/model/operation.ts';
import type { Workflows } from './workflow.ts';
import type { DifferenceRecords, OwnerNotes } from '../core/ports/host-differences.ts';
import type { Revocations } from '../core/ports/revocations.ts';
import type { Step, StepOutcome } from './step.ts';
import type { Progress } from '../core/ports/operation-records.ts';
import type { Store } from '../core/ports/store.ts';
import type { Concurrency } from './concurrency.ts';
import { errorMessage } from '../lib/error-message.ts';

/** What running an operation needs. */
export interface ExecutorDeps {
  readonly store: Store;
  readonly hypervisor: Hypervisor;
  readonly revocations: Revocations;
  readonly owners: Pick<DifferenceRecords, 'ownerOf'>;
  readonly ownerNotes: Pick<OwnerNotes, 'write'>;
  /** What each kind of operation does. */
  readonly workflows: Workflows;
  readonly logger: Logger;
  readonly concurrency: Concurrency;
}

/** A worker waits this long for a step without releasing the operation, in milliseconds. */
const shortWaitMs = 1_000;
const longestBackoffMs = 30_000;

/** Why a run of steps ended: this worker is finished with the operation, or must lock another host first. */
type RunEnd = 'finished' | 'other host';

/**
 * Runs a leased operation from its recorded step until it ends, is rescheduled, or another worker takes it over. Its
 * host is locked throughout, and the fence is checked before each step: a worker that takes over finds no step of the
 * former lease holder still running, and the former lease holder begins no further step.
 * @param leave when aborted, the operation is released after the current step.
 */
export async function runOperation(
  deps: ExecutorDeps,
  operation: LeasedOperation,
  leave: AbortSignal,
): Promise<void> {
  const { store, hypervisor, workflows, logger, concurrency } = deps;
  const workflow = workflows[operation.kind];
  let { failure, attempts } = operation;
  let steps = failure === undefined ? workflow.steps : workflow.rollback;
  // An operation that no worker has begun has a recorded step that is not in its workflow: it starts with the first.
  let index = Math.max(
    0,
    steps.findIndex((step) => step.name === operation.step),
  );

  /** Whether the current attempt at a step that has failed before has begun. */
  let isPrepared = false;
  /** By the current step, in place of its description. */
  let announced: string | undefined;

  const activityOf = (step: Step) => announced ?? step.description;
  const progress = (step: Step, activity = activityOf(step)): Progress => ({
    step: step.name,
    description: failure === undefined ? activity : `${activity} (${failure})`,
    failure,
    attempts,
  });
  const isPastDeadline = (extraMs: number) => Date.now() > operation.deadline.getTime() + extraMs;
  const rollBack = (reason: string) => {
    failure = reason;
    attempts = 0;
    steps = workflow.rollback;
    index = 0;
    announced = undefined;
  };
  const reschedule = async (step: Step, afterMs: number, activity?: string): Promise<RunEnd> => {
    await store.records.rescheduleOperation(operation, { ...progress(step, activity), afterMs });
    return 'finished';
  };

  async function runSteps(lockedHostId: string | undefined, hasBooted: () => void): Promise<RunEnd> {
    for (;;) {
      if (failure === undefined && isPastDeadline(0)) {
        const last = steps[index];
        rollBack(`The operation timed out during: ${last === undefined ? 'its end' : activityOf(last)}`);
      }
      const step = steps[index];
      if (step === undefined) return finish(lockedHostId);
      if (leave.aborted) return reschedule(step, 0);
      if (!(await store.records.recordProgress(operation, progress(step)))) return 'finished';
      const host = await store.records.hostOfInstance(operation.instanceId);
      if (host !== undefined && host.id !== lockedHostId) return 'other host';

      let outcome: StepOutcome;
      const announce = async (description: string) => {
        if (description === announced) return;
        announced = description;
        await store.records.recordProgress(operation, progress(step));
      };
      try {
        const run = async () => {
          const context = { ...deps, operation, host, announce, failures: attempts };
          // Once: if it started a VM that keeps ending each time that the step is polled, no failure would be counted.
          if (attempts > 0 && !isPrepared) await step.beforeRetry?.(context);
          isPrepared = true;
          return step.run(context);
        };
        if (step.afterBoot === true) hasBooted();
        outcome = await (step.waits === true
          ? run()
          : concurrency.limitStep(host?.tenantId ?? operation.instanceId, run));
      } catch (error) {
        attempts += 1;
        const reason = error instanceof HypervisorError ? error.summary : errorMessage(error);
        logger.warn(
          { operation: operation.id, host: host?.id, step: step.name, attempts, err: error },
          'A step of an operation failed',
        );
        if (failure === undefined && attempts >= workflow.attempts) {
          rollBack(`${activityOf(step)} failed: ${reason}`);
          continue;
        }
        if (failure !== undefined && attempts >= (workflow.rollbackAttempts ?? Infinity)) {
          return abandon(host, `${failure}. ${activityOf(step)} failed as well: ${reason}`);
        }
        // A rollback can only be retried.
        return reschedule(step, Math.min(longestBackoffMs, 250 * 2 ** attempts));
      }
      if (outcome.kind === 'done') {
        attempts = 0;
        index += 1;
        announced = undefined;
      } else if (
        failure !== undefined &&
        workflow.rollbackBudgetMs !== undefined &&
        isPastDeadline(workflow.rollbackBudgetMs)
      ) {
        return abandon(host, `${failure}. The rollback timed out during: ${activityOf(step)}`);
      } else if (outcome.afterMs > shortWaitMs) {
        return reschedule(step, outcome.afterMs, outcome.waitingFor);
      } else {
        await delay(outcome.afterMs, undefined, { signal: leave }).catch(() => undefined);
      }
    }
  }

  /** Ends a rollback that has failed too. Its host may not work, so it counts as out of reach: reconciliation restarts it. */
  async function abandon(host: Host | undefined, reason: string): Promise<RunEnd> {
    failure = reason;
    if (host !== undefined) await store.records.setHostUnreachable(host.id);
    return finish(host?.id);
  }

  async function finish(hostId: string | undefined): Promise<RunEnd> {
    const state = failure === undefined ? 'succeeded' : 'failed';
    const isOurs = await store.records.finishOperation(operation, {
      state,
      description:
        failure ?? workflow.summary?.(await store.records.hostOfInstance(operation.instanceId)) ?? 'Done',
      instance: workflow.instanceAfter[state],
    });
    if (isOurs) {
      const { id, kind } = operation;
      logger.info({ operation: id, kind, host: hostId, state, failure }, 'An operation has ended');
    }
    return 'finished';
  }

  let end: RunEnd;
  do {
    const host = await store.records.hostOfInstance(operation.instanceId);
    if (host === undefined) end = await runSteps(undefined, () => undefined);
    else {
      const run = (hasBooted: () => void) =>
        hypervisor.withHostLock(host.id, () => runSteps(host.id, hasBooted));
      const mayBoot = (await workflow.mayBoot?.(host, hypervisor, operation)) === true;
      end = mayBoot ? await concurrency.limitBoot(host.tenantId, run) : await run(() => undefined);
    }
  } while (end === 'other host');
}
