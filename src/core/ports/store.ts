import type { BindingRecords } from './binding-records.ts';
import type { HostRecords } from './host-records.ts';
import type { InstanceRecords } from './instance-records.ts';
import type { OperationRecords } from './operation-records.ts';
import type { PoolRecords } from './pool-records.ts';
import type { PowerRecords } from './power-records.ts';
import type { UsageRecords } from './usage-records.ts';

/** The port to Postgres. One object, so that what belongs together is written in one transaction. */
export interface Store {
  /** Reads and single writes, each in a transaction of its own. */
  readonly records: Records;
  /**
   * Runs `work` in one transaction. It must not wait for anything but the database. Wake-ups that it asks
   * for are sent when it commits. Where Postgres has undone it in favour of another transaction it is run again.
   * An instance is locked before what belongs to it: its operation, its host, its bindings.
   */
  transaction<T>(work: (records: Records) => Promise<T>): Promise<T>;
}

/** Everything that a transaction can read and write. */
export type Records = InstanceRecords &
  PoolRecords &
  HostRecords &
  UsageRecords &
  PowerRecords &
  BindingRecords &
  OperationRecords;
