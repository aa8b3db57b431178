import type { Request, RequestHandler, Response } from 'express';
import type { AuditEntry, AuditTrail } from '../core/ports/audit.ts';
import type { Logger } from '../lib/logger.ts';
import { requestIdentity } from './errors.ts';
import { withTimeout } from '../lib/with-timeout.ts';

/** What a request is about; undefined: it changes nothing, and is not recorded. */
export type Describe = (
  request: Request,
  response: Response,
) =>
  | Pick<AuditEntry, 'actor' | 'action' | 'platform' | 'identity' | 'instanceId' | 'bindingId' | 'detail'>
  | undefined;

/** Of refusals that cost a caller nothing (401, 429), so many are recorded in a minute; the rest is counted. */
const cheapRefusalsPerMinute = 60;

/**
 * Records each request that could change something, refused ones included, before its answer is sent. A row that
 * can't be written, or not in time, is logged in full and the answer goes out: what was changed is on record all the
 * same, by triggers, in the transaction that changed it (migrations/030-audit.ts).
 * @param withinMs how long an answer is held back for its row at the most, in milliseconds.
 * @param now milliseconds of a clock that never goes back.
 */
export function auditRequests(
  trail: AuditTrail,
  describe: Describe,
  logger: Logger,
  withinMs: number,
  now = () => performance.now(),
): RequestHandler {
  let minute = 0;
  let cheap = 0;
  let notRecorded = 0;

  /** Whether there is room for a cheap refusal: a flood of them must not fill the disk. */
  function hasRoom(): boolean {
    const current = Math.floor(now() / 60_000);
    if (current !== minute) [minute, cheap] = [current, 0];
    cheap += 1;
    if (cheap <= cheapRefusalsPerMinute) return true;
    notRecorded += 1;
    return false;
  }

  async function record(
    request: Request,
    response: Response,
    remoteAddress: string | undefined,
  ): Promise<void> {
    const subject = describe(request, response);
    const { statusCode: status } = response;
    if (subject === undefined || ((status === 401 || status === 429) && !hasRoom())) return;
    const error: unknown = response.locals['error'];
    const missed = notRecorded;
    notRecorded = 0;
    const entry: AuditEntry = {
      ...subject,
      ...(missed > 0 && { detail: { ...subject.detail, refusals_not_recorded: missed } }),
      remoteAddress,
      requestId: requestIdentity(response),
      status,
      outcome: outcomeOf(status),
      error: typeof error === 'string' ? error : undefined,
    };
    try {
      // After a timeout the row may still be written.
      await withTimeout(withinMs, 'recording the request', trail.record(entry));
    } catch (cause) {
      notRecorded += missed;
      logger.error({ err: cause, audit: entry }, 'A request could not be recorded in the audit trail');
    }
  }

  return (request, response, next) => {
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      // Now: a caller that has gone by the time of the answer has no address any more.
      const { remoteAddress } = request.socket;
      beforeEnd(response, () => record(request, response, remoteAddress));
    }
    next();
  };
}

/** Holds an answer back until `act` is done. It is the answer all the same: what comes after it changes nothing. */
function beforeEnd(response: Response, act: () => Promise<void>): void {
  const end = response.end.bind(response) as (...values: unknown[]) => Response;
  let begun = false;
  const held = (...values: unknown[]) => {
    if (!begun) {
      begun = true;
      const { statusCode } = response;
      // Status and headers are fixed from here on, and `headersSent` says so; they leave with the body.
      response.writeHead(statusCode);
      void act().finally(() => {
        // For the log: a handler that was late has set its own.
        response.statusCode = statusCode;
        end(...values);
      });
    }
    return response;
  };
  response.end = held as typeof response.end;
}

function outcomeOf(status: number): AuditEntry['outcome'] {
  if (status === 202) return 'accepted';
  if (status < 400) return 'succeeded';
  return status < 500 ? 'refused' : 'failed';
}
