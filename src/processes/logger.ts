import { type DestinationStream, pino } from 'pino';
import type { Logger } from '../lib/logger.ts';
import { logLine } from './log-line.ts';

/**
 * The log of a process: JSON lines on standard output, each printable and at most 16 KiB long. Code must not log secrets; `redact` is only the second line of
 * defence.
 */
export function createLogger(processName: string, level: string, destination?: DestinationStream): Logger {
  const options = {
    level,
    base: { process: processName },
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
  // Synchronous, so that lines before a crash are not lost.
  const output = destination ?? pino.destination({ dest: 1, sync: true });
  return pino(options, {
    write: (line) => {
      output.write(logLine(line));
    },
  });
}
