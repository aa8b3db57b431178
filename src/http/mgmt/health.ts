import type { RequestHandler } from 'express';
import type { DiskRoom } from '../../core/disk-admission.ts';
import type { Overview } from '../../core/ports/overview.ts';
import { errorMessage } from '../../lib/error-message.ts';
import { rulesNotices, rulesProblems } from './node-rules.ts';

/**
 * GET /mgmt/health: 200 if every process works, else 503; `problems` describes what does not, and `notices` what was repaired,
 * and `preparing` what workers make in the background: the image, or the template.
 * @param deps.disk space of the node with the least available, shown as `disk`.
 */
export function health(deps: {
  readonly overview: Overview;
  readonly hypervisor: string;
  readonly disk: () => Promise<DiskRoom | undefined>;
}): RequestHandler {
  const { overview, hypervisor } = deps;
  return async (_request, response) => {
    const problems: string[] = [];
    const notices: string[] = [];
    let preparing: string[] = [];
    let disk: DiskRoom | undefined;
    try {
      disk = await deps.disk();
      const { gateways, workers, freeSlots, differences, halted } = await overview.counts();
      if (gateways.live === 0) problems.push("No gateway has a lease: apps can't reach their hosts.");
      if (!workers.some(({ alive }) => alive)) {
        problems.push('No worker has reported recently: no operation progresses.');
      }
      const living = workers.filter(({ alive }) => alive);
      problems.push(...living.flatMap(({ preparationProblem: problem }) => problem ?? []));
      preparing = living.flatMap((worker) => worker.preparing ?? []);
      // Others are dealt with without an operator.
      const open = differences.filter(
        ({ kind, count }) => !['leftover', 'ownerless'].includes(kind) && count > 0,
      );
      if (open.length > 0) {
        const kinds = open.map(({ kind, count }) => `${count} ${kind}`).join(', ');
        problems.push(`Hosts differ from their records (${kinds}): "berth reconcile" says what to do.`);
      }
      for (const { name, alive, diskAvailableMib, diskReserveMib } of workers) {
        if (!alive || diskAvailableMib === null || diskReserveMib === null) continue;
        if (diskAvailableMib >= diskReserveMib) continue;
        problems.push(
          `The disk of ${name} has ${diskAvailableMib} MiB free, less than its reserve of ${diskReserveMib} MiB: no host is created, and hosts that write are halted until there is room.`,
        );
      }
      for (const { reason, count } of halted) {
        problems.push(`${count} running hosts have stopped VMs (${reason}): "berth hosts" lists them.`);
      }
      const rules = await overview.nodeRules();
      problems.push(...rulesProblems(rules));
      notices.push(...rulesNotices(rules));
      if (freeSlots === 0) problems.push('No slot is free: new instances are refused.');
    } catch (error) {
      problems.push(`Postgres can't be queried: ${errorMessage(error)}.`);
    }
    response.status(problems.length === 0 ? 200 : 503).json({
      status: problems.length === 0 ? 'ok' : 'degraded',
      hypervisor,
      simulated: hypervisor === 'simulated',
      problems,
      notices,
      disk,
      preparing,
    });
  };
}
