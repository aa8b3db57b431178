import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { Host } from '../core/model/host.ts';
import type { LeasedOperation } from '../core/model/operation.ts';
import type { DifferenceRecords, OwnerNotes } from '../core/ports/host-differences.ts';
import type { Revocations } from '../core/ports/revocations.ts';
import type { Logger } from '../lib/logger.ts';
import type { Store } from '../core/ports/store.ts';

/** What a step works with. */
export interface StepContext {
  readonly operation: LeasedOperation;
  /** The host of the operation's instance; undefined once it has been destroyed. */
  readonly host: Host | undefined;
  readonly store: Store;
  readonly hypervisor: Hypervisor;
  readonly revocations: Revocations;
  readonly owners: Pick<DifferenceRecords, 'ownerOf'>;
  readonly ownerNotes: Pick<OwnerNotes, 'write'>;
  readonly logger: Logger;
  /** How often the step has failed. */
  readonly failures: number;
  /** Records what the step is about to do, in place of its description. */
  readonly announce: (description: string) => Promise<void>;
}

/** A step is done, or must run again after a while. Steps never sleep. */
export type StepOutcome =
  | { readonly kind: 'done' }
  | {
      readonly kind: 'again';
      readonly afterMs: number;
      /** The subject of the wait, for people; undefined: that of the step. */
      readonly waitingFor: string | undefined;
    };

export const done: StepOutcome = { kind: 'done' };
export const retryAfter = (afterMs: number, waitingFor?: string): StepOutcome => ({
  kind: 'again',
  afterMs,
  waitingFor,
});

/**
 * One idempotent part of an operation: it measures what exists, does what is missing, and verifies. It may be killed
 * at any point and run again, also by another worker.
 */
export interface Step {
  readonly name: string;
  /** What is in progress, for people: the `description` of last_operation. */
  readonly description: string;
  /** The step mostly waits for a guest or a gateway, so it doesn't count toward the limit on concurrent steps. */
  readonly waits?: boolean;
  /** The guest has booted when this step begins; from here on the operation mostly waits for its engine. */
  readonly afterBoot?: boolean;
  run(context: StepContext): Promise<StepOutcome>;
  /** Runs once before each further attempt at a step that has failed: what former steps have made may be gone. */
  beforeRetry?(context: StepContext): Promise<void>;
}

/** @throws Error if the operation's instance has no host: a defect. */
export function requireHost({ host, operation }: StepContext): Host {
  if (host === undefined) throw new Error(`no host is recorded for operation ${operation.id}`);
  return host;
}
