import type { RequestHandler } from 'express';
import { refused } from '../core/errors.ts';
import { maxHeaders } from './limits.ts';

/** Refuses a request with too many headers; Node alone would silently drop the last ones. */
export const headerLimit: RequestHandler = (request, _response, next) => {
  next(
    request.rawHeaders.length / 2 > maxHeaders
      ? refused.headersTooLarge(`The request has more than ${maxHeaders} headers.`)
      : undefined,
  );
};
