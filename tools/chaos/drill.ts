import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { OperationKind } from '../../src/core/model/operation.ts';
import { workflows } from '../../src/operations/workflows.ts';
import { faultPoints } from './faults.ts';
import { inspect } from './inspect.ts';
import { occasions } from './occasions.ts';
import type { PatientPlatform } from './platform.ts';
import type { Site } from './site.ts';

export interface DrillOptions {
  /** Operations at once. */
  readonly width: number;
  /** Within which everything that was begun must have ended, in milliseconds. */
  readonly patienceMs: number;
  /** Of these kinds only; of all where it is left out. */
  readonly kinds?: readonly OperationKind[];
  readonly report: (line: string) => void;
}

/** Every kind of operation that there is. */
export const operationKinds = Object.keys(workflows) as readonly OperationKind[];

const lookEveryMs = 100;
/** Each round meets several points; more rounds than this mean that a point is never come by. */
const mostRounds = 6;

/**
 * Kills a worker before, in and after every step of every kind of operation, undo steps included, and sees to it
 * that each operation ends rightly and leaves nothing.
 * @returns what was not as promised, in words.
 */
export async function drill(
  site: Site,
  platform: PatientPlatform,
  options: DrillOptions,
): Promise<{ kills: number; violations: readonly string[] }> {
  const violations: string[] = [];
  const before = site.faults.fired();
  for (const kind of options.kinds ?? operationKinds) {
    for (const part of ['steps', 'rollback'] as const) {
      const points = faultPoints(workflows).filter((point) => point.kind === kind && point.part === part);
      if (points.length === 0) continue;
      let rounds = 0;
      const ready = () => site.faults.armed().filter((name) => name.startsWith(`${kind}.${part}.`));
      do {
        const ids = Array.from({ length: options.width }, () => randomUUID());
        if (kind !== 'provision') await Promise.all(ids.map((id) => create(platform, id)));
        // Not earlier: another kind's operations could come by.
        if (rounds === 0) for (const point of points) site.faults.arm(point);
        rounds += 1;
        const ended = await Promise.all(ids.map((id) => bring(site, platform, kind, part, id, options)));
        violations.push(...ended.flat(), ...(await whenQuiet(site, options.patienceMs)));
        await Promise.all(ids.map((id) => remove(platform, id)));
      } while (ready().length > 0 && rounds < mostRounds);
      for (const name of ready()) violations.push(`no operation came by ${name}`);
      options.report(
        `${kind} ${part}: ${points.length} kills in ${rounds * options.width} operations, ${violations.length} violations so far`,
      );
    }
  }
  violations.push(...(await whenQuiet(site, options.patienceMs)));
  return { kills: site.faults.fired() - before, violations };
}

async function create(platform: PatientPlatform, id: string): Promise<void> {
  await platform.create(id);
  const state = await platform.settled(id);
  if (state !== 'succeeded') throw new Error(`instance ${id} could not be made ready: ${state}`);
}

async function remove(platform: PatientPlatform, id: string): Promise<void> {
  await platform.remove(id);
  await platform.settled(id);
}

async function bring(
  site: Site,
  platform: PatientPlatform,
  kind: OperationKind,
  part: 'steps' | 'rollback',
  id: string,
  { patienceMs }: DrillOptions,
): Promise<string[]> {
  const { after } = occasions[kind];
  if (part === 'rollback') site.faults.armFailure(kind);
  await occasions[kind].bring(site, platform, id);
  const deadline = performance.now() + patienceMs;
  const isUndone = part === 'rollback';
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
      const wanted = isUndone ? after.undone : after.succeeded;
      const isRight =
        operation.state === (isUndone ? 'failed' : 'succeeded') && operation.instance === wanted;
      return isRight
        ? []
        : [`${kind} of ${id} ended as ${JSON.stringify(operation)}, not as ${wanted ?? '?'}`];
    }
    if (performance.now() > deadline) return [`${kind} of ${id} never ended`];
    await delay(lookEveryMs);
  }
}

/** What is not as promised, once nothing is under way any more; what passes by itself is waited for. */
export async function whenQuiet(site: Site, patienceMs: number): Promise<string[]> {
  const deadline = performance.now() + patienceMs;
  for (;;) {
    const found = await inspect(site);
    if (found.length === 0 || performance.now() > deadline) return found;
    await delay(lookEveryMs);
  }
}
