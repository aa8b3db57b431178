import type { Knex } from 'knex';
import type { NodeRuleRecords, NodeRules } from '../core/ports/node-rules.ts';
import { isWorkerAlive } from './workers.ts';

interface NodeRulesRow {
  worker: string;
  repairs: number;
  repaired_at: Date | null;
  altered: string | null;
  failure: string | null;
}

export function createNodeRuleRecords(database: Knex): NodeRuleRecords {
  return {
    async recordInForce(worker, repaired) {
      await database.raw(
        `INSERT INTO node_rules AS former (worker, repairs, repaired_at, altered)
           VALUES (:worker, :repairs, CASE WHEN :repairs > 0 THEN clock_timestamp() END, :altered)
         ON CONFLICT (worker) DO UPDATE SET repairs = former.repairs + excluded.repairs,
           repaired_at = coalesce(excluded.repaired_at, former.repaired_at),
           altered = coalesce(excluded.altered, former.altered), failure = NULL`,
        { worker, repairs: repaired?.repairs ?? 0, altered: repaired?.altered ?? null },
      );
    },

    async recordFailure(worker, failure) {
      await database('node_rules').insert({ worker, failure }).onConflict('worker').merge();
    },
  };
}

/** Of each worker that has had something to report. */
export async function nodeRules(database: Knex): Promise<readonly NodeRules[]> {
  const rows: NodeRulesRow[] = await database('node_rules')
    .orderBy('worker')
    .select(
      'worker',
      'repairs',
      'altered',
      database.raw(
        `CASE WHEN repaired_at > clock_timestamp() - interval '1 day' THEN repaired_at END AS repaired_at`,
      ),
      database.raw(
        `CASE WHEN EXISTS (SELECT FROM workers WHERE name = worker AND ${isWorkerAlive}) THEN failure END AS failure`,
      ),
    );
  return rows.map(({ worker, repairs, repaired_at: at, altered, failure }) => ({
    worker,
    repairs,
    lastRepair: at === null ? undefined : { at, altered: altered ?? '' },
    failure: failure ?? undefined,
  }));
}
