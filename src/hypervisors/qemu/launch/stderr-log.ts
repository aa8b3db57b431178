import type { Logger } from '../../../lib/logger.ts';

/** QEMU's complaints are kept up to here, from their end, in characters. */
const mostKept = 4_000;
/** So many of a machine are logged at once, and one more each minute: a flood of them fills nobody's log. */
const mostAtOnce = 20;
const moreEveryMs = 60_000;

/** What QEMUs that this process has started print, by machine. */
export interface StderrLog {
  /** A QEMU is started; what an earlier one of the machine said is forgotten. */
  begin(id: string): void;
  /** Keeps it, and logs it where that machine has not said too much; what was left out is counted. */
  hear(id: string, text: string): void;
  lastWords(id: string): string;
  /** The machine has gone. */
  forget(id: string): void;
}

interface Machine {
  words: string;
  /** How much may be logged by now, since when. */
  left: number;
  since: number;
  /** Since something was logged. */
  leftOut: number;
}

/** @param now in milliseconds. */
export function createStderrLog(logger: Logger, now = () => performance.now()): StderrLog {
  const machines = new Map<string, Machine>();

  /** Whether one more may be logged. */
  function take(machine: Machine): boolean {
    const due = Math.floor((now() - machine.since) / moreEveryMs);
    machine.left = Math.min(mostAtOnce, machine.left + due);
    machine.since += due * moreEveryMs;
    if (machine.left === 0) return false;
    machine.left -= 1;
    return true;
  }

  const fresh = (): Machine => ({ words: '', left: mostAtOnce, since: now(), leftOut: 0 });
  return {
    begin(id) {
      // What it may log it does not get anew: its guest can have it end as often as it likes.
      machines.set(id, { ...(machines.get(id) ?? fresh()), words: '' });
    },
    hear(id, text) {
      const machine = machines.get(id);
      if (machine === undefined) return;
      machine.words = (machine.words + text).slice(-mostKept);
      if (!take(machine)) {
        machine.leftOut += 1;
        return;
      }
      const { leftOut } = machine;
      logger.warn(
        { machine: id, text: text.slice(0, mostKept), ...(leftOut > 0 && { leftOut }) },
        'QEMU says',
      );
      machine.leftOut = 0;
    },
    lastWords: (id) => machines.get(id)?.words.trim() ?? '',
    forget(id) {
      machines.delete(id);
    },
  };
}
