import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { OperationKind } from '../../src/core/model/operation.ts';
import type { Step, StepContext, StepOutcome } from '../../src/operations/step.ts';
import type { Workflow, Workflows } from '../../src/operations/workflow.ts';

/**
 * A point in an operation at which a worker can be killed: before a step, after the step's first call to something
 * outside, or after the step but before its end is recorded.
 */
export interface FaultPoint {
  readonly kind: OperationKind;
  readonly phase: 'steps' | 'rollback';
  readonly step: string;
  readonly moment: (typeof moments)[number];
}

const moments = ['before', 'during', 'after'] as const;
const pauseSuffix = '.pause';
const nameOf = ({ kind, phase, step, moment }: FaultPoint) => `${kind}.${phase}.${step}.${moment}`;

/** Every fault point of these workflows, in order. */
export function faultPoints(workflows: Workflows): readonly FaultPoint[] {
  return Object.values(workflows).flatMap((workflow) =>
    (['steps', 'rollback'] as const).flatMap((phase) =>
      workflow[phase].flatMap(({ name }) =>
        moments.map((moment) => ({ kind: workflow.kind, phase, step: name, moment })),
      ),
    ),
  );
}

/** Faults that wait for a worker: files in a folder that the workers read; each fires once. */
export interface Faults {
  /** The next worker that reaches the point is killed. */
  arm(point: FaultPoint): void;
  /**
   * The next worker that reaches the point is stopped (SIGSTOP).
   * @returns a function that returns its process id once that has happened.
   */
  armSuspension(point: FaultPoint): () => number | undefined;
  /** The next operation of this kind fails at its last step on every attempt. */
  armFailure(kind: OperationKind): void;
  /** Removes all faults that have not fired. */
  disarm(): void;
  armed(): readonly string[];
  /** Number of faults that have killed or stopped a worker. */
  fired(): number;
}

const folders = (directory: string) => ({
  armed: path.join(directory, 'armed'),
  fired: path.join(directory, 'fired'),
  failing: path.join(directory, 'failing'),
});

export function openFaults(directory: string): Faults {
  const { armed, fired, failing } = folders(directory);
  for (const folder of [armed, fired, failing]) mkdirSync(folder, { recursive: true });
  return {
    arm(point) {
      writeFileSync(path.join(armed, nameOf(point)), '');
    },
    armSuspension(point) {
      const name = `${nameOf(point)}${pauseSuffix}`;
      writeFileSync(path.join(armed, name), '');
      return () => {
        const [firedName] = readdirSync(fired).filter((one) => one.startsWith(name));
        return firedName === undefined ? undefined : Number(firedName.split('.').at(-1));
      };
    },
    armFailure(kind) {
      writeFileSync(path.join(armed, `${failureOf(kind)}.${randomUUID()}`), '');
    },
    disarm() {
      for (const name of readdirSync(armed)) rmSync(path.join(armed, name), { force: true });
    },
    armed: () => readdirSync(armed),
    fired: () => readdirSync(fired).length,
  };
}

const failureOf = (kind: OperationKind) => `${kind}.failure`;

/** The same workflows, but steps fail and their worker is killed as the faults in this folder say. */
export function withWorkflowFaults(workflows: Workflows, directory: string): Workflows {
  const { armed, fired, failing } = folders(directory);
  /** Takes a fault by renaming its file, which succeeds in one process only. */
  const takes = (name: string, target: string) => {
    try {
      renameSync(path.join(armed, name), target);
      return true;
    } catch {
      return false;
    }
  };
  const pass = (point: FaultPoint) => {
    const name = nameOf(point);
    const signals = [
      [name, 'SIGKILL'],
      [`${name}${pauseSuffix}`, 'SIGSTOP'],
    ] as const;
    for (const [file, signal] of signals) {
      if (takes(file, path.join(fired, `${file}.${Date.now()}.${process.pid}`)))
        process.kill(process.pid, signal);
    }
  };
  const mustFail = (kind: OperationKind, operationId: string) => {
    const marker = path.join(failing, operationId);
    return (
      existsSync(marker) ||
      readdirSync(armed).some((name) => name.startsWith(failureOf(kind)) && takes(name, marker))
    );
  };

  const faulty = (kind: OperationKind, phase: FaultPoint['phase'], step: Step, isLast: boolean): Step => {
    const at = (moment: FaultPoint['moment']) => {
      pass({ kind, phase, step: step.name, moment });
    };
    return {
      ...step,
      async run(context): Promise<StepOutcome> {
        at('before');
        if (phase === 'steps' && isLast && mustFail(kind, context.operation.id)) {
          throw new Error('this step fails on purpose');
        }
        const outcome = await step.run(
          observed(context, () => {
            at('during');
          }),
        );
        if (outcome.kind === 'done') at('after');
        return outcome;
      },
    };
  };
  const list = (kind: OperationKind, phase: FaultPoint['phase'], steps: readonly Step[]) =>
    steps.map((step, index) => faulty(kind, phase, step, index === steps.length - 1));
  return Object.fromEntries(
    Object.entries(workflows).map(([kind, workflow]) => [
      kind,
      {
        ...workflow,
        steps: list(workflow.kind, 'steps', workflow.steps),
        rollback: list(workflow.kind, 'rollback', workflow.rollback),
      } satisfies Workflow,
    ]),
  ) as unknown as Workflows;
}

/** A context that calls `onCall` after each completed asynchronous call through it. */
function observed(context: StepContext, onCall: () => void): StepContext {
  const watch = <T extends object>(target: T): T =>
    new Proxy(target, {
      get(from, key) {
        const value: unknown = Reflect.get(from, key);
        if (typeof value !== 'function') return value;
        return (...args: unknown[]) => {
          const answer: unknown = Reflect.apply(value, from, args);
          return answer instanceof Promise
            ? answer.then((result: unknown) => {
                onCall();
                return result;
              })
            : answer;
        };
      },
    });
  return {
    ...context,
    hypervisor: watch(context.hypervisor),
    revocations: watch(context.revocations),
    store: { ...context.store, records: watch(context.store.records) },
  };
}
