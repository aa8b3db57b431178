import type { Knex } from 'knex';
import * as first from './001-first.ts';
import * as platforms from './010-platforms.ts';
import * as quotas from './011-quotas.ts';
import * as expiry from './012-expiry.ts';
import * as bindingRotation from './013-binding-rotation.ts';
import * as updates from './014-updates.ts';
import * as admission from './015-admission.ts';
import * as audit from './030-audit.ts';
import * as hostChecks from './040-host-checks.ts';
import * as poolAndIdle from './050-pool-and-idle.ts';
import * as registries from './060-registries.ts';
import * as masterKeys from './031-master-keys.ts';
import * as authorities from './032-authorities.ts';
import * as releases from './041-releases.ts';
import * as roomForWakes from './051-room-for-wakes.ts';
import * as failedChecks from './042-failed-checks.ts';
import * as disputedHosts from './080-disputed-hosts.ts';
import * as vocabulary from './070-vocabulary.ts';
import * as installation from './082-installation.ts';
import * as databaseHistory from './083-database-history.ts';
import * as gatewayCounts from './084-gateway-counts.ts';
import * as slotsRest from './085-slots-rest.ts';
import * as idsUsedAgain from './086-ids-used-again.ts';
import * as preparation from './093-preparation.ts';
import * as imageOnRecord from './088-image-on-record.ts';
import * as memoryLost from './087-memory-lost.ts';
import * as diskSpace from './089-disk-space.ts';
import * as nodeRules from './090-node-rules.ts';
import * as hostRestarts from './091-host-restarts.ts';
import * as hostDifferences from './092-host-differences.ts';
import * as totals from './094-totals.ts';
import * as freeSlots from './095-free-slots.ts';
import * as gatewayNames from './096-gateway-names.ts';
import * as onePool from './097-one-pool.ts';

/**
 * Every migration. The order of this list is the order in which they run, and what Knex checks against the database:
 * never reorder or rename them. The numbers before 070 are historical and not in order; new ones count up from 080.
 * A list, since Knex can't load a folder of `.ts` files.
 */
const migrations: readonly { name: string; migration: Knex.Migration }[] = [
  { name: '001-first', migration: first },
  { name: '010-platforms', migration: platforms },
  { name: '011-quotas', migration: quotas },
  { name: '012-expiry', migration: expiry },
  { name: '013-binding-rotation', migration: bindingRotation },
  { name: '014-updates', migration: updates },
  { name: '015-admission', migration: admission },
  { name: '030-audit', migration: audit },
  { name: '040-host-checks', migration: hostChecks },
  { name: '050-pool-and-idle', migration: poolAndIdle },
  { name: '060-registries', migration: registries },
  { name: '031-master-keys', migration: masterKeys },
  { name: '032-authorities', migration: authorities },
  { name: '041-releases', migration: releases },
  { name: '051-room-for-wakes', migration: roomForWakes },
  { name: '042-failed-checks', migration: failedChecks },
  { name: '070-vocabulary', migration: vocabulary },
  { name: '082-installation', migration: installation },
  { name: '083-database-history', migration: databaseHistory },
  { name: '085-slots-rest', migration: slotsRest },
  { name: '086-ids-used-again', migration: idsUsedAgain },
  { name: '088-image-on-record', migration: imageOnRecord },
  { name: '091-host-restarts', migration: hostRestarts },
  { name: '092-host-differences', migration: hostDifferences },
  { name: '080-disputed-hosts', migration: disputedHosts },
  { name: '087-memory-lost', migration: memoryLost },
  { name: '089-disk-space', migration: diskSpace },
  { name: '084-gateway-counts', migration: gatewayCounts },
  { name: '094-totals', migration: totals },
  { name: '090-node-rules', migration: nodeRules },
  { name: '093-preparation', migration: preparation },
  { name: '095-free-slots', migration: freeSlots },
  { name: '096-gateway-names', migration: gatewayNames },
  { name: '097-one-pool', migration: onePool },
];

export const migrationSource: Knex.MigrationSource<(typeof migrations)[number]> = {
  getMigrations: () => Promise.resolve([...migrations]),
  getMigrationName: ({ name }) => name,
  getMigration: ({ migration }) => Promise.resolve(migration),
};
