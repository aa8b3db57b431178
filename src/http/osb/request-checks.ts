import type { RequestHandler } from 'express';
import { refused } from '../../core/errors.ts';
import { jsonProblem } from '../json-validation.ts';

/** Requires a JSON object as body, with the Content-Type that says so (docs/osb.md 5). */
export const requireJsonObject: RequestHandler = (request, _response, next) => {
  if (request.is('application/json') === false || request.is('application/json') === null) {
    next(refused.badRequest('The request must have a JSON body, with Content-Type: application/json.'));
    return;
  }
  const body: unknown = request.body;
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    next(refused.badRequest('The request body must be a JSON object.'));
    return;
  }
  const problem = jsonProblem(body, 1);
  next(problem === undefined ? undefined : refused.badRequest(`The request body ${problem}.`));
};

/**
 * Refuses a NUL anywhere in the URL, whether the broker reads that part or not, and an empty id (docs/osb.md 5).
 * The router refuses a path with invalid percent-encoding.
 */
export const checkUrl: RequestHandler = (request, _response, next) => {
  if (request.originalUrl.includes('%00')) {
    next(refused.badRequest('The path or the query contains a NUL character, which no id or name may have.'));
    return;
  }
  const [, kind] = /\/service_(instance|binding)s\/(?:\/|$)/.exec(request.path) ?? [];
  next(
    kind === undefined
      ? undefined
      : refused.badRequest(`${kind}_id: must have 1 to 255 characters, and no NUL.`),
  );
};
