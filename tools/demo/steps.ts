/** Prints one line per step with its duration. */
export interface Steps {
  /** Runs a step and prints its result if that is text. Errors are shown and rethrown. */
  step<T>(what: string, act: () => Promise<T>): Promise<T>;
  say(line: string): void;
}

export function createSteps(out: NodeJS.WritableStream): Steps {
  return {
    async step(what, act) {
      const begun = performance.now();
      const time = () => `${Math.round(performance.now() - begun)} ms`.padStart(9);
      try {
        const result = await act();
        out.write(`✔ ${time()}  ${what}${typeof result === 'string' ? `: ${result}` : ''}\n`);
        return result;
      } catch (error) {
        out.write(`✘ ${time()}  ${what}\n`);
        throw error;
      }
    },
    say(line) {
      out.write(`${line}\n`);
    },
  };
}

/** A promise of Berth does not hold. */
export class BrokenPromise extends Error {
  override readonly name = 'BrokenPromise';
}

/** @throws BrokenPromise with this message unless the condition holds. */
export function promised(holds: boolean, message: string): void {
  if (!holds) throw new BrokenPromise(message);
}
