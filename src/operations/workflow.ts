import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { Host } from '../core/model/host.ts';
import type { InstanceState } from '../core/model/instance.ts';
import type { Operation, OperationKind } from '../core/model/operation.ts';
import type { Step } from './step.ts';

/** What an operation of one kind does. */
export interface Workflow {
  readonly kind: OperationKind;
  readonly steps: readonly Step[];
  /** Run from the first one, instead of the steps, once the operation has failed. */
  readonly rollback: readonly Step[];
  /** Whether the VM is likely to boot, which keeps a processor busy until it has. Undefined means never. */
  readonly mayBoot?: (host: Host, hypervisor: Hypervisor, operation: Operation) => Promise<boolean>;
  /** Attempts of one step before the operation is rolled back. */
  readonly attempts: number;
  /** Attempts of one rollback step before the rollback is abandoned. Undefined means unlimited. */
  readonly rollbackAttempts?: number;
  /**
   * Time for the rollback after the operation's deadline, in milliseconds; then it is abandoned. It is subtracted from
   * the deadline, so that the operation stays within `maximum_polling_duration`.
   */
  readonly rollbackBudgetMs?: number;
  /** The last description of a successful operation; `Done` if undefined. */
  readonly summary?: (host: Host | undefined) => string;
  /** State of the instance after the operation; undefined leaves it unchanged. */
  readonly instanceAfter: {
    readonly succeeded: InstanceState | undefined;
    readonly failed: InstanceState | undefined;
  };
}

export type Workflows = Readonly<Record<OperationKind, Workflow>>;
