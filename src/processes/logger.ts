import { type DestinationStream, pino } from 'pino';
import type { Logger } from '../lib/logger.ts';

/**
 * The log of a role: JSON lines on standard output. Secrets never reach it; the list below is the second
 * line of defence, not the first.
 */
export function createLogger(role: string, level: string, destination?: DestinationStream): Logger {
  const options = {
    level,
    base: { role },
    redact: {
      paths: [
        '*.password',
        '*.key',
        '*.privateKeyPem',
        '*.credentials',
        '*.authorization',
        'connectionString',
      ],
      censor: '[secret]',
    },
    timestamp: pino.stdTimeFunctions.isoTime,
  };
  // Synchronous: what was logged before a crash is there to be read.
  return pino(options, destination ?? pino.destination({ dest: 1, sync: true }));
}
