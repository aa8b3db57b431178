import type { Request, RequestHandler, Response } from 'express';
import type { AuditEntry, AuditTrail } from '../core/ports/audit.ts';
import type { Logger } from '../lib/logger.ts';
import { withTimeout } from '../lib/with-timeout.ts';
import { isAuthenticated } from './auth.ts';
import { delayAnswer } from './delay-answer.ts';
import { requestIdentity } from './errors.ts';
import { createRefusalLimit } from './refusal-limit.ts';

/** What a request is about; undefined if it changes nothing and is not recorded. */
export type Describe = (
  request: Request,
  response: Response,
) =>
  | Pick<AuditEntry, 'actor' | 'action' | 'platform' | 'identity' | 'instanceId' | 'bindingId' | 'detail'>
  | undefined;

/**
 * Records each request that could change something, including refused ones, before its answer is sent. If the row
 * can't be written in time, the request is logged in full and answered: triggers have recorded the changes themselves
 * in their own transaction (migrations/030-audit.ts).
 * @param withinMs how long an answer waits for its row, in milliseconds.
 * @param now milliseconds of a monotonic clock.
 */
export function auditRequests(
  trail: AuditTrail,
  describe: Describe,
  logger: Logger,
  withinMs: number,
  now = () => performance.now(),
): RequestHandler {
  const refusalLimit = createRefusalLimit(now);

  async function record(
    request: Request,
    response: Response,
    remoteAddress: string | undefined,
  ): Promise<void> {
    const subject = describe(request, response);
    const { statusCode: status } = response;
    if (subject === undefined) return;
    // Whatever the reason of the refusal: a row must not be free for a caller without a credential.
    const isFree = !isAuthenticated(response) || status === 429;
    if (isFree && !refusalLimit.admits()) return;
    const error: unknown = response.locals['error'];
    const skipped = refusalLimit.takeSkipped();
    const entry: AuditEntry = {
      ...subject,
      ...(skipped > 0 && { detail: { ...subject.detail, refusals_not_recorded: skipped } }),
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
      refusalLimit.addSkipped(skipped);
      logger.error(
        { err: cause, audit: entry },
        'Request could not be recorded in the audit trail; it was answered',
      );
    }
  }

  return (request, response, next) => {
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      // Read now: a socket has no address after the client disconnects.
      const { remoteAddress } = request.socket;
      delayAnswer(response, () => record(request, response, remoteAddress));
    }
    next();
  };
}

function outcomeOf(status: number): AuditEntry['outcome'] {
  if (status === 202) return 'accepted';
  if (status < 400) return 'succeeded';
  return status < 500 ? 'refused' : 'failed';
}
