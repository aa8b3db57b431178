import type { ObservedHost } from '../core/hypervisor/lifecycle.ts';
import type { DifferenceKind, KnownHost } from '../core/ports/host-differences.ts';

/** How an observed host differs from its row; undefined if it does not. */
export function differenceOf(
  host: ObservedHost,
  known: KnownHost | undefined,
): Exclude<DifferenceKind, 'missing'> | undefined {
  const { owner, slot, state, hasRun } = host;
  if (state === 'unreadable') return 'unreadable';
  if (known === undefined) return owner === undefined && !hasRun ? 'ownerless' : 'owned';
  if (known.state === 'destroyed') {
    return owner === undefined || owner === known.instanceId ? 'leftover' : 'owned';
  }
  if (known.state === 'disputed') return 'disputed';
  const isOthers = owner !== undefined && owner !== known.instanceId;
  return isOthers || (slot !== undefined && slot !== known.slot) ? 'disputed' : undefined;
}

/** With more orphans at once that Postgres never heard of, it has probably lost transactions. */
const mostUnknown = 3;

interface Removable {
  readonly hostId: string;
  readonly kind: DifferenceKind;
  readonly ageSeconds: number;
}

/**
 * The one orphan that may be destroyed in this round without an operator; undefined if there is none. A leftover may once
 * it has been seen in two rounds; one that no tenant has used after the grace period, but only if no other sign
 * tells that Postgres has lost transactions.
 * @param former hosts that differed in the last round already.
 */
export function removableOrphan<T extends Removable>(
  differences: readonly T[],
  former: ReadonlySet<string>,
  graceSeconds: number,
): T | undefined {
  const leftover = differences.find(({ kind, hostId }) => kind === 'leftover' && former.has(hostId));
  if (leftover !== undefined) return leftover;
  const ofKind = (wanted: DifferenceKind) => differences.filter(({ kind }) => kind === wanted);
  const ownerless = ofKind('ownerless');
  const hasLostTransactions =
    ownerless.length > mostUnknown || ofKind('owned').length > 0 || ofKind('disputed').length > 0;
  if (hasLostTransactions) return undefined;
  return ownerless.find(({ hostId, ageSeconds }) => former.has(hostId) && ageSeconds >= graceSeconds);
}
