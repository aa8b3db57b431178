import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { OperationKind } from '../../src/core/model/operation.ts';
import type { Workflows } from '../../src/operations/workflows.ts';
import type { Step, StepContext, StepOutcome } from '../../src/operations/step.ts';

/**
 * Where in an operation a worker can be killed: before a step, after the first thing that the step has asked
 * for, or after the step and before that is on record.
 */
export interface FaultPoint {
  readonly kind: OperationKind;
  readonly part: 'steps' | 'rollback';
  readonly step: string;
  readonly moment: (typeof moments)[number];
}

const moments = ['before', 'amid', 'after'] as const;
const pauseSuffix = '.pause';
const nameOf = ({ kind, part, step, moment }: FaultPoint) => `${kind}.${part}.${step}.${moment}`;

/** Every point of every kind of operation, in order. */
export function faultPoints(plans: Workflows): readonly FaultPoint[] {
  return Object.values(plans).flatMap((plan) =>
    (['steps', 'rollback'] as const).flatMap((part) =>
      plan[part].flatMap(({ name }) =>
        moments.map((moment) => ({ kind: plan.kind, part, step: name, moment })),
      ),
    ),
  );
}

/** Faults that wait for a worker to meet them: files in a folder that the workers look at, each met once. */
export interface Faults {
  /** The next worker that comes by is killed there. */
  arm(point: FaultPoint): void;
  /**
   * The next worker that comes by is suspended there.
   * @returns what tells its process id, once that has happened.
   */
  armPause(point: FaultPoint): () => number | undefined;
  /** One operation of this kind, the next to come by, fails at its last step each time that it is tried. */
  armFailure(kind: OperationKind): void;
  /** Takes back whatever nobody has come by. */
  disarm(): void;
  armed(): readonly string[];
  /** How many have killed a worker. */
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
    armPause(point) {
      const name = `${nameOf(point)}${pauseSuffix}`;
      writeFileSync(path.join(armed, name), '');
      return () => {
        const [met] = readdirSync(fired).filter((one) => one.startsWith(name));
        return met === undefined ? undefined : Number(met.split('.').at(-1));
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

/** The same operations, whose worker is killed and whose steps fail where a fault of this folder says so. */
export function withFaults(plans: Workflows, directory: string): Workflows {
  const { armed, fired, failing } = folders(directory);
  /** Whoever moves the file has it, and nobody else: also among processes. */
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
  const isToFail = (kind: OperationKind, operationId: string) => {
    const mark = path.join(failing, operationId);
    return (
      existsSync(mark) ||
      readdirSync(armed).some((name) => name.startsWith(failureOf(kind)) && takes(name, mark))
    );
  };

  const faulty = (kind: OperationKind, part: FaultPoint['part'], step: Step, isLast: boolean): Step => {
    const at = (moment: FaultPoint['moment']) => {
      pass({ kind, part, step: step.name, moment });
    };
    return {
      ...step,
      async run(context): Promise<StepOutcome> {
        at('before');
        if (part === 'steps' && isLast && isToFail(kind, context.operation.id)) {
          throw new Error('it fails on purpose');
        }
        const outcome = await step.run(
          observed(context, () => {
            at('amid');
          }),
        );
        if (outcome.kind === 'done') at('after');
        return outcome;
      },
    };
  };
  const list = (kind: OperationKind, part: FaultPoint['part'], steps: readonly Step[]) =>
    steps.map((step, index) => faulty(kind, part, step, index === steps.length - 1));
  return Object.fromEntries(
    Object.entries(plans).map(([kind, plan]) => [
      kind,
      {
        ...plan,
        steps: list(plan.kind, 'steps', plan.steps),
        undo: list(plan.kind, 'rollback', plan.rollback),
      },
    ]),
  ) as unknown as Workflows;
}

/** A context that tells of each thing that was asked for through it and has been done. */
function observed(context: StepContext, told: () => void): StepContext {
  const watch = <T extends object>(target: T): T =>
    new Proxy(target, {
      get(from, key) {
        const value: unknown = Reflect.get(from, key);
        if (typeof value !== 'function') return value;
        return (...args: unknown[]) => {
          const answer: unknown = Reflect.apply(value, from, args);
          return answer instanceof Promise
            ? answer.then((result: unknown) => {
                told();
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
