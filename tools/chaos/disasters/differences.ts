import { until } from '../../lib/until.ts';
import type { Scene } from './disaster.ts';

interface Difference {
  readonly host: string;
  readonly kind: string;
  readonly canBeAdopted: boolean;
}

/** What `berth reconcile` lists. */
export async function differences({ operator }: Scene): Promise<readonly Difference[]> {
  const { body } = await operator.askUntilAnswered('GET', '/mgmt/reconcile');
  return body['differences'] as readonly Difference[];
}

/** Waits until the operator sees that this host differs in this way. */
export async function expectDifference(
  scene: Scene,
  hostId: string,
  ...kinds: string[]
): Promise<Difference> {
  return until(`host ${hostId} is reported as ${kinds.join(' or ')}`, scene.patienceMs, async () =>
    (await differences(scene)).find(({ host, kind }) => host === hostId && kinds.includes(kind)),
  );
}
