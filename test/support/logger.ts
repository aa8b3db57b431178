import type { Logger } from '../../src/core/logger.ts';

/** Drops everything that is logged. */
export const silentLogger: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => silentLogger,
};

/** Keeps what is logged at `error`, as objects. */
export function createRecordingLogger() {
  const lines: Record<string, unknown>[] = [];
  const logger: Logger = {
    ...silentLogger,
    error: (details) => {
      lines.push({ ...details });
    },
    child: () => logger,
  };
  return { logger, lines };
}
