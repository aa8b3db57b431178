import type { Logger } from '../../src/lib/logger.ts';

/** Discards everything. */
export const silentLogger: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => silentLogger,
};

/** Records what is logged at `error`, as objects. */
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

/** Records every line, with its message. */
export function createLineLogger() {
  const lines: { details: Record<string, unknown>; message: string }[] = [];
  const record = (details: object, message: string) => {
    lines.push({ details: { ...details }, message });
  };
  const logger: Logger = { debug: record, info: record, warn: record, error: record, child: () => logger };
  return { logger, lines };
}
