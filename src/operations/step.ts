import type { Host } from '../core/model/host.ts';
import type { LeasedOperation, OperationKind } from '../core/model/operation.ts';
import type { InstanceState } from '../core/model/instance.ts';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { Revocations } from '../core/ports/revocations.ts';
import type { Store } from '../core/ports/store.ts';

/** What a step has at hand. */
export interface StepContext {
  readonly operation: LeasedOperation;
  /** The host of the operation's instance; undefined once it has been destroyed. */
  readonly host: Host | undefined;
  readonly store: Store;
  readonly hypervisor: Hypervisor;
  readonly revocations: Revocations;
}

/** How a step ended: it is done, or it must be looked at again. Steps never sleep. */
export type StepOutcome = { readonly kind: 'done' } | { readonly kind: 'again'; readonly afterMs: number };

export const done: StepOutcome = { kind: 'done' };
export const retryAfter = (afterMs: number): StepOutcome => ({ kind: 'again', afterMs });

/**
 * One idempotent part of an operation: it measures what is there, does what is missing, and verifies. It
 * may be killed at any point and run again, by another worker too.
 */
export interface Step {
  readonly name: string;
  /** What is under way, in words for people: the `description` of last_operation. */
  readonly description: string;
  /** It mostly waits, for a guest or a gateway, and takes no turn from steps that keep this machine at work. */
  readonly waits?: boolean;
  run(context: StepContext): Promise<StepOutcome>;
}

/** What an operation of one kind does. */
export interface Workflow {
  readonly kind: OperationKind;
  readonly steps: readonly Step[];
  /** Run instead, from the first, once the operation can't succeed any more; until they are done. */
  readonly rollback: readonly Step[];
  /** Whether the host's machine is likely to boot, which keeps a processor at work until it has; left out: never. */
  readonly mayBoot?: (host: Host, hypervisor: Hypervisor) => Promise<boolean>;
  /** Tries of one step before the operation is undone. */
  readonly attempts: number;
  /**
   * Tries of one step of the undo before that is given up as well. Left out: it is tried until it works.
   */
  readonly rollbackAttempts?: number;
  /**
   * How long after the deadline an undo that can be given up is, in milliseconds. The deadline comes so much earlier, so
   * that the whole operation keeps to the time that the catalog names.
   */
  readonly rollbackBudgetMs?: number;
  /** What last_operation says in the end; `Done` where it is left out. */
  readonly summary?: (host: Host | undefined) => string;
  /** State of the instance once the operation has succeeded or failed; undefined leaves it. */
  readonly instanceAfter: {
    readonly succeeded: InstanceState | undefined;
    readonly failed: InstanceState | undefined;
  };
}
