import type { ChildProcessWithoutNullStreams } from 'node:child_process';

/** Hears when something arrives on a command's standard output. */
export interface Listener {
  /** Whether anything has arrived yet. */
  hasBegun(): boolean;
  /**
   * The longest time without output since the last call, in milliseconds, with a silence that lasts still.
   * @throws Error if the command has ended.
   */
  longestSilenceMs(): number;
  /** Ends the command. */
  end(): void;
}

export function listen(command: ChildProcessWithoutNullStreams): Listener {
  let last: number | undefined;
  let longest = 0;
  let errors = '';
  const sinceLast = () => (last === undefined ? 0 : performance.now() - last);
  command.stdout.on('data', () => {
    longest = Math.max(longest, sinceLast());
    last = performance.now();
  });
  command.stderr.setEncoding('utf8').on('data', (text: string) => (errors = (errors + text).slice(-2000)));
  return {
    hasBegun: () => last !== undefined,
    longestSilenceMs() {
      if (command.exitCode !== null || command.signalCode !== null) {
        throw new Error(`the stream of the container's log has ended: ${errors}`);
      }
      const result = Math.max(longest, sinceLast());
      longest = 0;
      return result;
    },
    end: () => void command.kill('SIGKILL'),
  };
}
