import type { Logger } from '../../../src/lib/logger.ts';

const quiet = () => undefined;

/** Discards everything: the bench shows its own progress, and failures are thrown. */
export const quietLogger: Logger = {
  debug: quiet,
  info: quiet,
  warn: quiet,
  error: quiet,
  child: () => quietLogger,
};
