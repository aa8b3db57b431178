import type { RequestHandler } from 'express';
import { refused } from '../core/errors.ts';
import { sendRefusal } from './errors.ts';

/**
 * Answers 503 where nothing else has been answered in time: platforms give up at 60 s, and then know nothing
 * (docs/osb.md 7). What the request had begun may still come to its end, as after a connection that was lost.
 * @param ms counted from when the request's headers are there.
 */
export function answerWithin(ms: number): RequestHandler {
  return (_request, response, next) => {
    const timer = setTimeout(() => {
      const { refusal } = refused.unavailable(
        `The broker could not do this within ${Math.round(ms / 1000)} s. Try again later.`,
      );
      // Also where an answer is only held back, for its row in the audit trail (audit.ts).
      if (!response.headersSent) sendRefusal(response, refusal);
    }, ms);
    response.once('close', () => {
      clearTimeout(timer);
    });
    next();
  };
}
