import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type { AdmissionRules } from '../core/model/node-memory.ts';
import type { Plan, PoolSize } from '../core/catalog/catalog.ts';
import { wantedHosts } from '../core/pool-state.ts';
import { HostDisputedError } from '../core/hypervisor/host-disputed-error.ts';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import { errorMessage } from '../lib/error-message.ts';
import type { Logger } from '../lib/logger.ts';
import type { PoolHost } from '../core/model/host.ts';
import { toHostSpec } from '../core/model/host-spec.ts';
import type { Store } from '../core/ports/store.ts';
import { createHostTasks } from './host-tasks.ts';
import { createPoolRoom } from './pool-room.ts';

/** Fills the pool with hosts of the sizes in demand, and shrinks it if memory, slots or disk space are short. */
export interface PoolController {
  /**
   * Destroys parked hosts that are unusable, and parks new ones unless a tenant waits.
   * @throws Error if the database or the hypervisor fails; the next run continues.
   */
  runOnce(): Promise<void>;
}

/** One worker at a time maintains the pool. If it does not renew its lease for this time, another takes over. */
const leadershipMs = 15_000;
/** Interval between two checks of a parked host, in milliseconds. */
const verifyEveryMs = 30_000;

/**
 * Parked hosts are recorded before they are created and until they are destroyed. An instance claims one with a single
 * update of its row; its provision operation then runs the same steps as for any other host, of which only setting the
 * identity is left to do.
 * @param deps.isBusy whether tenants wait for operations: no host is parked then.
 * @param deps.availableMib the node's available memory; if it leaves no room for a host, the pool shrinks.
 * @param deps.signal aborts between two hosts.
 */
export function createPoolController(deps: {
  store: Store;
  hypervisor: Hypervisor;
  logger: Logger;
  plans: readonly Plan[];
  size: PoolSize;
  isBusy: () => boolean;
  availableMib: () => Promise<number>;
  admission: AdmissionRules;
  diskAdmission: AdmissionRules;
  signal: AbortSignal;
}): PoolController {
  const { store, hypervisor, logger, plans, size, isBusy, signal } = deps;
  const { records } = store;
  const owner = randomUUID();
  const verified = new Map<string, number>();
  const room = createPoolRoom({ ...deps, records });

  const checks = createHostTasks({
    failed: 'A parked host could not be checked; retrying after a pause that grows to 5 min',
    logger,
  });

  const isLeader = () => records.acquireLeadership('pool', owner, leadershipMs);

  async function setAside(host: PoolHost, error: HostDisputedError): Promise<void> {
    await records.setHostAside(host, errorMessage(error));
    logger.error(
      { host: host.id, err: error },
      'A host of the pool was set aside: it is not what its row says; it is left as it is until an operator decides',
    );
  }

  /** Withdraws the host first, so that it can't be claimed any more. If a claim was faster, leaves it alone. */
  async function discard(host: PoolHost, why: string): Promise<void> {
    if (!(await records.withdrawPoolHost(host.id))) return;
    try {
      await hypervisor.destroy(toHostSpec(host));
    } catch (error) {
      if (!(error instanceof HostDisputedError)) throw error;
      return setAside(host, error);
    }
    await records.setHostDestroyed(host.id);
    verified.delete(host.id);
    logger.info({ host: host.id, plan: host.planName, why }, 'A parked host was destroyed');
  }

  /** Why a host of the pool is unusable; undefined if it is usable. */
  async function defectOf(host: PoolHost): Promise<string | undefined> {
    // This worker is the leader, so no other one is creating or destroying the host.
    if (host.state === 'parking') return 'it was left half made, or drift was found';
    const plan = plans.find(({ name }) => name === host.planName);
    if (plan === undefined || !isDeepStrictEqual(plan.shape, host.shape))
      return 'its plan is no longer offered';
    if (plan.publishedPorts !== host.publishedPorts.count)
      return 'its plan now publishes another number of ports';
    // Also one of a former version of Berth, which has no image on record: nobody could claim it.
    const version = hypervisor.imageVersion();
    if (version !== undefined && host.imageVersion !== version) return 'it was made from another image';
    if (performance.now() - (verified.get(host.id) ?? -Infinity) < verifyEveryMs) return undefined;
    if (!(await hypervisor.hasTemplate(host))) return undefined;
    if (!(await hypervisor.park(toHostSpec(host))))
      return 'its VM has ended, or its template is not the newest';
    verified.set(host.id, performance.now());
    return undefined;
  }

  const { vcpus, memory, disk } = hypervisor.capabilities.liveGrowth;
  const canGrow = vcpus && memory && disk;
  const setParked = async ({ id }: PoolHost) =>
    records.setHostParked(id, { imageVersion: await hypervisor.imageVersionOf(id), canGrow });

  /** Parks one more host. False if there is no slot for it or no template. */
  async function parkOne(plan: Plan): Promise<boolean> {
    const host = await records.insertPoolHost({
      id: randomUUID(),
      planName: plan.name,
      shape: plan.shape,
      publishedPorts: plan.publishedPorts,
      egress: plan.egress,
    });
    if (host === undefined) return false;
    try {
      await hypervisor.prepare(toHostSpec(host));
      if ((await hypervisor.park(toHostSpec(host))) && (await setParked(host))) {
        verified.set(host.id, performance.now());
        return true;
      }
    } catch (error) {
      // Its slot is another host's, and stays taken.
      if (error instanceof HostDisputedError) await setAside(host, error);
      else await discard(host, 'it could not be created');
      throw error;
    }
    await discard(host, 'there is no template to restore it from');
    return false;
  }

  const mayGrow = async () =>
    !signal.aborted && !isBusy() && (await room()) === 'plenty' && (await isLeader());

  /** Parks what is missing. Hosts of sizes that are not in demand make room for it one by one. */
  async function fill(present: readonly PoolHost[]): Promise<void> {
    const restored: Plan[] = [];
    for (const plan of plans)
      if (await hypervisor.hasTemplate({ planName: plan.name, shape: plan.shape })) restored.push(plan);
    // They are of use while the template is bad, or is made.
    if (restored.length === 0 && plans.some(({ fromTemplate }) => fromTemplate)) return;
    const targets = await wantedHosts(restored, size, records);
    const wanted = [...targets.values()].reduce((sum, count) => sum + count, 0);
    const ofPlan = ({ name }: Plan) => present.filter(({ planName }) => planName === name);
    const surplus = plans.flatMap((plan) => ofPlan(plan).slice(targets.get(plan.name) ?? 0));
    let count = present.length;
    const discardSurplus = async (why: string) => {
      const host = surplus.pop();
      if (host === undefined) return;
      await discard(host, why);
      count -= 1;
    };
    while (count > wanted && surplus.length > 0) await discardSurplus('the pool is larger than it should be');
    for (const plan of restored) {
      for (let index = ofPlan(plan).length; index < (targets.get(plan.name) ?? 0); index += 1) {
        if (!(await mayGrow())) return;
        if (count >= wanted) await discardSurplus('hosts of another size are in demand');
        if (!(await parkOne(plan))) break;
        count += 1;
      }
    }
  }

  return {
    async runOnce() {
      if (!(await isLeader())) return;
      const hosts = new Map((await records.poolHosts()).map((host) => [host.id, host]));
      await checks.run([...hosts.keys()], async (id) => {
        const host = hosts.get(id);
        if (host === undefined || !(await isLeader())) return;
        const why = await defectOf(host);
        if (why === undefined) return;
        await discard(host, why);
        hosts.delete(id);
      });
      if (!(await isLeader())) return;
      // Those whose check failed or has not ended exist, and count.
      const present = [...hosts.values()].filter(({ state }) => state === 'parked');

      // One per run: the memory it frees is measured before the next one is destroyed.
      const [first] = present;
      if (first !== undefined && (await room()) === 'short')
        await discard(first, 'memory, slots or disk space are short');
      else await fill(present);
    },
  };
}
