import type { SimulatedAct, SimulatedFaults } from '../../src/hypervisors/simulated/simulated.ts';
import { eventually } from './eventually.ts';

/** Keeps operations under way for as long as a test wants: the hypervisor's acts are held, by condition. */
export function createHolds() {
  const held = new Map<SimulatedAct, { over: Promise<void>; release: () => void }>();
  const reached = new Set<SimulatedAct>();
  /** How often each act fails before it works again. */
  const failures = new Map<SimulatedAct, number>();

  const faults: SimulatedFaults = {
    async before(act) {
      const hold = held.get(act);
      if (hold !== undefined) {
        reached.add(act);
        await hold.over;
      }
      const left = failures.get(act) ?? 0;
      if (left === 0) return;
      failures.set(act, left - 1);
      throw new Error(`${act} is broken on purpose`);
    },
  };
  /** @param act all of them where it is left out. */
  const letGo = (act?: SimulatedAct) => {
    for (const one of act === undefined ? [...held.keys()] : [act]) {
      held.get(one)?.release();
      held.delete(one);
      reached.delete(one);
    }
  };
  return {
    faults,
    /** From now on `act` waits for every host. */
    hold(act: SimulatedAct) {
      let release: () => void = () => undefined;
      const over = new Promise<void>((resolve) => (release = resolve));
      held.set(act, { over, release });
    },
    /** Until an operation stands in the act that is held. */
    reached: (act: SimulatedAct) => eventually(`${act} is reached`, () => reached.has(act)),
    letGo,
    /** Makes `act` fail so often, whichever host it is of. */
    fail(act: SimulatedAct, times: number) {
      failures.set(act, times);
    },
  };
}
