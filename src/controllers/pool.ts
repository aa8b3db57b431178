import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { expectedMib } from '../core/admission.ts';
import type { AdmissionRules } from '../core/model/node-memory.ts';
import type { Plan } from '../core/catalog/catalog.ts';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { Logger } from '../lib/logger.ts';
import type { PooledHost } from '../core/model/host.ts';
import { toHostSpec } from '../core/model/host-spec.ts';
import type { Store } from '../core/ports/store.ts';

/** Keeps each plan's pool at its size. */
export interface PoolController {
  /**
   * One round: destroys what is of no use, and makes what is missing while no tenant waits.
   * @throws where the database or the hypervisor fails; the next round goes on.
   */
  runOnce(): Promise<void>;
}

/** One worker at a time keeps the pool; another takes over when this one has been silent for so long. */
const leaseMs = 15_000;
/** A host that is held is looked at again so often, in milliseconds. */
const verifyEveryMs = 30_000;
/** The pool grows only while so much more is free than it shrinks at. */
const marginMib = 256;
const marginSlots = 2;

/**
 * Hosts restored ahead, and held before anybody has used them. They are on record before they are made and until
 * they are gone; an instance claims one by one update of its row (store), and its provision operation goes on
 * from there with the same steps as for any other host, all of which find their work done but for the identity.
 * @param parts.isBusy whether tenants wait for operations: nothing is made meanwhile.
 * @param parts.availableMib the machine's available memory; where it leaves no room for a host, the pool shrinks.
 * @param parts.leave aborts between two hosts.
 */
export function createPoolController(parts: {
  store: Store;
  hypervisor: Hypervisor;
  logger: Logger;
  plans: readonly Plan[];
  isBusy: () => boolean;
  availableMib: () => Promise<number>;
  admission: AdmissionRules;
  leave: AbortSignal;
}): PoolController {
  const { store, hypervisor, logger, plans, isBusy, availableMib, admission, leave } = parts;
  const { records } = store;
  const owner = randomUUID();
  const verified = new Map<string, number>();
  /** Beyond what is left alone, room for one more host of any plan: the pool takes none that a tenant is refused for. */
  const keptMib =
    admission.reserveMib + Math.max(0, ...plans.map(({ shape }) => expectedMib(admission, shape.memoryMib)));
  let isPressed = false;

  const keeps = () => records.acquireLeadership('pool', owner, leaseMs);

  /** Withdrawn first, so that nobody can claim what is being destroyed; a claim that was faster has it. */
  async function discard(host: PooledHost, why: string): Promise<void> {
    if (!(await records.withdrawPooledHost(host.id))) return;
    await hypervisor.destroy(host.id);
    await records.setHostDestroyed(host.id);
    verified.delete(host.id);
    logger.info({ host: host.id, plan: host.planName, why }, 'A pooled host was destroyed');
  }

  /** Undefined where its machine's record has gone. */
  const imageVersionOf = (host: PooledHost) => hypervisor.imageVersionOf(host.id).catch(() => undefined);

  /** Why a pooled host is of no use; undefined while it is. */
  async function fault(host: PooledHost): Promise<string | undefined> {
    // Whoever was making or destroying it does not any more: this is the only keeper.
    if (host.state === 'parking') return 'it was left half made, or found altered';
    const plan = plans.find(({ name }) => name === host.planName);
    if (plan === undefined || !isDeepStrictEqual(plan.shape, host.shape))
      return 'its plan is not offered any more';
    if (plan.publishedPorts !== host.publishedPorts.count) return 'its plan publishes other ports now';
    // Also while there is no template of the new image yet.
    if ((await imageVersionOf(host)) !== hypervisor.imageVersion) return 'it is of another image';
    if (performance.now() - (verified.get(host.id) ?? -Infinity) < verifyEveryMs) return undefined;
    if (!(await hypervisor.hasTemplate(host.planName))) return undefined;
    if (!(await hypervisor.park(toHostSpec(host))))
      return 'its machine has ended, or its template is not the newest';
    verified.set(host.id, performance.now());
    return undefined;
  }

  /** Makes one host for the pool. False where there is no room for it. */
  async function add(plan: Plan): Promise<boolean> {
    const host = await records.insertPooledHost({
      id: randomUUID(),
      planName: plan.name,
      shape: plan.shape,
      publishedPorts: plan.publishedPorts,
      egress: plan.egress,
    });
    if (host === undefined) return false;
    try {
      await hypervisor.prepare(toHostSpec(host));
      if ((await hypervisor.park(toHostSpec(host))) && (await records.setHostParked(host.id))) {
        verified.set(host.id, performance.now());
        return true;
      }
    } catch (error) {
      await discard(host, 'it could not be made');
      throw error;
    }
    await discard(host, 'there is no template to restore it from');
    return false;
  }

  /** `short`: the pool shrinks. `plenty`: it may grow. Apart, so that it does not do both in turn. */
  async function room(): Promise<'short' | 'enough' | 'plenty'> {
    const available = await availableMib();
    const slots = await records.freeSlots();
    if (available < keptMib !== isPressed) {
      isPressed = !isPressed;
      logger.warn(
        { availableMib: Math.floor(available), keptMib },
        isPressed ? 'Memory is short: the pool shrinks' : 'Memory is not short any more',
      );
    }
    if (isPressed || slots === 0) return 'short';
    return available < keptMib + marginMib || slots <= marginSlots ? 'enough' : 'plenty';
  }

  const mayGrow = async () => !leave.aborted && !isBusy() && (await room()) === 'plenty' && (await keeps());

  return {
    async runOnce() {
      if (!(await keeps())) return;
      const useful: PooledHost[] = [];
      for (const host of await records.pooledHosts()) {
        const why = await fault(host);
        if (why === undefined) useful.push(host);
        else await discard(host, why);
        if (!(await keeps())) return;
      }

      // One a round: what that gives back is seen before the next one goes.
      const [first] = useful;
      if (first !== undefined && (await room()) === 'short')
        await discard(first, 'memory or slots are short');

      for (const plan of plans) {
        const own = useful.filter(({ planName }) => planName === plan.name);
        for (const host of own.slice(plan.pool))
          await discard(host, 'the pool holds more than its plan says');
        if (!(await hypervisor.hasTemplate(plan.name))) continue;
        for (let count = own.length; count < plan.pool; count += 1) {
          if (!(await mayGrow())) return;
          if (!(await add(plan))) break;
        }
      }
    },
  };
}
