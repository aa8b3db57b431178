import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { OperationKind } from '../../src/core/model/operation.ts';
import { workflows } from '../../src/operations/workflows.ts';
import { faultPoints } from './faults.ts';
import { findViolations } from './find-violations.ts';
import { operationCauses } from './operation-causes.ts';
import type { PatientPlatform } from './platform.ts';
import type { ChaosInstallation } from './installation.ts';

export interface DrillOptions {
  /** Concurrent operations. */
  readonly width: number;
  /** Deadline for everything that was started, in milliseconds. */
  readonly patienceMs: number;
  /** Only these kinds; all by default. */
  readonly kinds?: readonly OperationKind[];
  readonly report: (line: string) => void;
}

/** All kinds of operations. */
export const operationKinds = Object.keys(workflows) as readonly OperationKind[];

const lookEveryMs = 100;
/** Each round reaches several points; if more rounds are needed, a point is never reached. */
const maxRounds = 6;

/**
 * Kills a worker before, in and after every step of every kind of operation, rollback steps included, and checks that
 * each operation ends correctly and leaves nothing behind.
 * @returns the number of kills and descriptions of all violations.
 */
export async function drill(
  site: ChaosInstallation,
  platform: PatientPlatform,
  options: DrillOptions,
): Promise<{ kills: number; violations: readonly string[] }> {
  const violations: string[] = [];
  const before = site.faults.fired();
  for (const kind of options.kinds ?? operationKinds) {
    for (const phase of ['steps', 'rollback'] as const) {
      const points = faultPoints(workflows).filter((point) => point.kind === kind && point.phase === phase);
      if (points.length === 0) continue;
      let rounds = 0;
      const unreached = () => site.faults.armed().filter((name) => name.startsWith(`${kind}.${phase}.`));
      do {
        const ids = Array.from({ length: options.width }, () => randomUUID());
        if (kind !== 'provision') await Promise.all(ids.map((id) => create(platform, id)));
        // Not earlier, because operations of another kind could reach the point.
        if (rounds === 0) for (const point of points) site.faults.arm(point);
        rounds += 1;
        const ended = await Promise.all(
          ids.map((id) => causeAndCheck(site, platform, kind, phase, id, options)),
        );
        violations.push(...ended.flat(), ...(await whenQuiet(site, options.patienceMs)));
        await Promise.all(ids.map((id) => remove(platform, id)));
      } while (unreached().length > 0 && rounds < maxRounds);
      for (const name of unreached()) violations.push(`no operation reached ${name}`);
      options.report(
        `${kind} ${phase}: ${points.length} kills in ${rounds * options.width} operations, ${violations.length} violations so far`,
      );
    }
  }
  violations.push(...(await whenQuiet(site, options.patienceMs)));
  return { kills: site.faults.fired() - before, violations };
}

async function create(platform: PatientPlatform, id: string): Promise<void> {
  await platform.create(id);
  const state = await platform.settled(id);
  if (state !== 'succeeded') throw new Error(`instance ${id} did not become ready: ${state}`);
}

async function remove(platform: PatientPlatform, id: string): Promise<void> {
  await platform.remove(id);
  await platform.settled(id);
}

async function causeAndCheck(
  site: ChaosInstallation,
  platform: PatientPlatform,
  kind: OperationKind,
  phase: 'steps' | 'rollback',
  id: string,
  { patienceMs }: DrillOptions,
): Promise<string[]> {
  const { after } = operationCauses[kind];
  if (phase === 'rollback') site.faults.armFailure(kind);
  await operationCauses[kind].cause(site, platform, id);
  const deadline = performance.now() + patienceMs;
  const isRolledBack = phase === 'rollback';
  for (;;) {
    const operation = await site
      .database('operations')
      .join('instances', 'instances.id', 'operations.instance_id')
      .where({ osb_id: id, kind })
      .orderBy('operations.created_at', 'desc')
      .first<{ state: string; instance: string; description: string } | undefined>(
        'operations.state',
        'instances.state as instance',
        'operations.description',
      )
      .catch(() => undefined);
    if (operation !== undefined && operation.state !== 'in progress') {
      const wanted = isRolledBack ? after.rolledBack : after.succeeded;
      const isCorrect =
        operation.state === (isRolledBack ? 'failed' : 'succeeded') && operation.instance === wanted;
      return isCorrect
        ? []
        : [`${kind} of ${id} ended as ${JSON.stringify(operation)}, not as ${wanted ?? '?'}`];
    }
    if (performance.now() > deadline) return [`${kind} of ${id} never ended`];
    await delay(lookEveryMs);
  }
}

/** The violations once no operation is running; waits for those that disappear by themselves. */
export async function whenQuiet(site: ChaosInstallation, patienceMs: number): Promise<string[]> {
  const deadline = performance.now() + patienceMs;
  for (;;) {
    const found = await findViolations(site);
    if (found.length === 0 || performance.now() > deadline) return found;
    await delay(lookEveryMs);
  }
}
