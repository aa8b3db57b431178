import type { Logger } from '../../src/lib/logger.ts';

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

/** Keeps every line that is logged, with its message. */
export function createLineLogger() {
  const lines: { details: Record<string, unknown>; message: string }[] = [];
  const keep = (details: object, message: string) => {
    lines.push({ details: { ...details }, message });
  };
  const logger: Logger = { debug: keep, info: keep, warn: keep, error: keep, child: () => logger };
  return { logger, lines };
}
