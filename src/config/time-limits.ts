import { textOf } from './env.ts';
import { settingTable } from './setting-table.ts';

const setting = settingTable.timeLimitFactor;
// The one setting that is read when its module is loaded: limits are constants. readSettings refuses an invalid value.
const factor = setting.type.parse(textOf(process.env, setting.name) ?? '') ?? setting.fallback();

/**
 * A time limit on a guest, its engine, QEMU or a tool, as it applies on this node (`BERTH_TIME_LIMIT_FACTOR`).
 * @param ms the limit on a node of usual speed, in milliseconds.
 */
export const timeLimit = (ms: number): number => ms * factor;
