/** Shows what is done, a line a step with its time, and remembers whether all was as promised. */
export interface Steps {
  /** Runs a step; what it throws is shown, and thrown on. What it returns as text is shown beside it. */
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

/** A promise was not kept. */
export class BrokenPromise extends Error {
  override readonly name = 'BrokenPromise';
}

/** @throws BrokenPromise where it is not so. */
export function promised(isSo: boolean, otherwise: string): void {
  if (!isSo) throw new BrokenPromise(otherwise);
}
