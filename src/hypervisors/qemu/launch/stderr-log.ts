import type { Logger } from '../../../lib/logger.ts';

/** Characters of QEMU's error output that are kept per VM: the newest. */
const mostKept = 4_000;
/** Messages of one VM that are logged at once; one more is allowed each minute, so that a flood cannot fill the log. */
const mostAtOnce = 20;
const moreEveryMs = 60_000;

/** The error output of the QEMU processes that this process has started, by VM. */
export interface StderrLog {
  /** Call before a QEMU starts: drops the output of the VM's earlier process. */
  begin(id: string): void;
  /** Stores the text, and logs it unless the VM has used up its allowance; suppressed messages are counted. */
  append(id: string, text: string): void;
  /** The end of the VM's output, trimmed; empty if there is none. */
  lastOutput(id: string): string;
  /** Drops everything about a VM that does not exist any more. */
  forget(id: string): void;
}

interface VmOutput {
  text: string;
  /** Messages that may still be logged; refilled since `since`. */
  allowance: number;
  since: number;
  /** Messages that were not logged since the last one that was. */
  suppressed: number;
}

/** @param now in milliseconds. */
export function createStderrLog(logger: Logger, now = () => performance.now()): StderrLog {
  const outputs = new Map<string, VmOutput>();

  /** Uses one message of the allowance; false if none is left. */
  function take(output: VmOutput): boolean {
    const due = Math.floor((now() - output.since) / moreEveryMs);
    output.allowance = Math.min(mostAtOnce, output.allowance + due);
    output.since += due * moreEveryMs;
    if (output.allowance === 0) return false;
    output.allowance -= 1;
    return true;
  }

  const fresh = (): VmOutput => ({ text: '', allowance: mostAtOnce, since: now(), suppressed: 0 });
  return {
    begin(id) {
      // A restart does not refill the allowance: a guest can end its QEMU as often as it likes.
      outputs.set(id, { ...(outputs.get(id) ?? fresh()), text: '' });
    },
    append(id, text) {
      const output = outputs.get(id);
      if (output === undefined) return;
      output.text = (output.text + text).slice(-mostKept);
      if (!take(output)) {
        output.suppressed += 1;
        return;
      }
      const { suppressed } = output;
      logger.warn(
        { vm: id, text: text.slice(0, mostKept), ...(suppressed > 0 && { suppressed }) },
        'QEMU printed an error message',
      );
      output.suppressed = 0;
    },
    lastOutput: (id) => outputs.get(id)?.text.trim() ?? '',
    forget(id) {
      outputs.delete(id);
    },
  };
}
