import type { Knex } from 'knex';
import type { DisputedRecords } from '../../core/ports/disputed-records.ts';
import type { HostRow } from './rows.ts';

/** The column's limit. */
const maxProblem = 2_000;

export function createDisputedRecords(connection: Knex): DisputedRecords {
  return {
    async setHostAside({ id, instanceId }, problem) {
      const row = connection<HostRow>('hosts').where({ id }).whereNotIn('state', ['disputed', 'destroyed']);
      const changed = await row.where({ instance_id: instanceId ?? null }).update({
        state: 'disputed',
        // A trigger takes its owner from it: a worker has no right to change that.
        problem: problem.slice(0, maxProblem),
        engine_host: null,
        engine_port: null,
        updated_at: new Date(),
      });
      return changed === 1;
    },

    disputedHosts: () => connection<HostRow>('hosts').where({ state: 'disputed' }).select('id', 'slot'),
  };
}
