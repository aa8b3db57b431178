import type { RequestHandler } from 'express';
import { refused } from '../core/errors.ts';
import { sendRefusal } from './errors.ts';

/**
 * Answers 503 if the handler is too slow: after 60 s, platforms time out without an answer (docs/osb.md 7). The
 * work is not cancelled and may still complete, as after a lost connection.
 * @param ms counted from the arrival of the request's headers.
 */
export function answerWithin(ms: number): RequestHandler {
  return (_request, response, next) => {
    const timer = setTimeout(() => {
      const { refusal } = refused.unavailable(
        `The broker could not complete this request within ${Math.round(ms / 1000)} s. Try again later.`,
      );
      // True as well for an answer that is only delayed by its row in the audit trail (audit.ts).
      if (!response.headersSent) sendRefusal(response, refusal);
    }, ms);
    response.once('close', () => {
      clearTimeout(timer);
    });
    next();
  };
}
