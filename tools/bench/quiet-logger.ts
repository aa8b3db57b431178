import type { Logger } from '../../src/lib/logger.ts';

const quiet = () => undefined;

/** For parts that log where the bench shows its own progress; what fails is thrown. */
export const quietLogger: Logger = {
  debug: quiet,
  info: quiet,
  warn: quiet,
  error: quiet,
  child: () => quietLogger,
};
