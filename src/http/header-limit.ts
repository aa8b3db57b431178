import type { RequestHandler } from 'express';
import { refused } from '../core/errors.ts';
import { maxHeaders } from './limits.ts';

/** Too many headers are refused; Node itself would only leave away the last ones, whichever they are. */
export const headerLimit: RequestHandler = (request, _response, next) => {
  next(
    request.rawHeaders.length / 2 > maxHeaders
      ? refused.headersTooLarge(`The request has more than ${maxHeaders} headers.`)
      : undefined,
  );
};
