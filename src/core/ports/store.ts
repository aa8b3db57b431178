import type { BindingRecords } from './binding-records.ts';
import type { DisputedRecords } from './disputed-records.ts';
import type { HostRecords } from './host-records.ts';
import type { InstanceRecords } from './instance-records.ts';
import type { OperationRecords } from './operation-records.ts';
import type { PoolRecords } from './pool-records.ts';
import type { PowerRecords } from './power-records.ts';
import type { RestartRecords } from './restart-records.ts';
import type { UsageRecords } from './usage-records.ts';

/** The port to Postgres. One object, so that related records are written in one transaction. */
export interface Store {
  /** Reads and single writes, each in a separate transaction. */
  readonly records: Records;
  /**
   * Runs `work` in one transaction. It must not wait for anything but the database. Its notifications are sent on
   * commit. It runs again if Postgres aborts it because of a deadlock or a serialization failure. Lock order: an
   * instance before its operation, its host and its bindings.
   */
  transaction<T>(work: (records: Records) => Promise<T>): Promise<T>;
}

/** Everything that a transaction can read and write. */
export type Records = InstanceRecords &
  PoolRecords &
  HostRecords &
  DisputedRecords &
  UsageRecords &
  PowerRecords &
  RestartRecords &
  BindingRecords &
  OperationRecords;
