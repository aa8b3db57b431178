import type { ChaosInstallation } from '../installation.ts';
import type { Random } from '../random.ts';
import { corruptRecord } from './corrupt-record.ts';
import type { Disaster } from './disaster.ts';
import { firewallFlush } from './firewall-flush.ts';
import { fullDisk } from './full-disk.ts';
import { hostileEngine } from './hostile-engine.ts';
import { ioError } from './io-error.ts';
import { failover, restoredDatabase } from './lost-transactions.ts';
import { secondInstallation } from './second-installation.ts';

export const disasters: readonly Disaster[] = [
  corruptRecord,
  failover,
  firewallFlush,
  fullDisk,
  hostileEngine,
  ioError,
  restoredDatabase,
  secondInstallation,
];

/** The disasters that can strike this installation. @param report is told why others can't. */
export function possibleDisasters(
  site: ChaosInstallation,
  wanted: readonly Disaster[],
  report: (line: string) => void,
): readonly Disaster[] {
  return wanted.filter((disaster) => {
    const why = disaster.impossible?.(site);
    if (why !== undefined) report(`${disaster.name} is left out: ${why}`);
    return why === undefined;
  });
}

/** This number of strikes, in random order: each disaster strikes as often as any other, or once more. */
export function deal(possible: readonly Disaster[], count: number, random: Random): readonly Disaster[] {
  const dealt: Disaster[] = [];
  while (possible.length > 0 && dealt.length < count) {
    const left = [...possible];
    while (left.length > 0) dealt.push(...left.splice(random.integer(left.length), 1));
  }
  return dealt.slice(0, count);
}
