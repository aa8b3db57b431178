import type { ErrorRequestHandler, RequestHandler, Response } from 'express';
import { type Refusal, RefusedError, refused } from '../core/errors.ts';
import type { Logger } from '../lib/logger.ts';
import { printable } from '../lib/printable.ts';
import { longestDescription, maxBodyBytes } from './limits.ts';

/** The only translator from errors to HTTP. Every body is JSON with a description (docs/osb.md 6). */
export function errorHandler(logger: Logger): ErrorRequestHandler {
  // Express recognizes an error handler by its four parameters.
  // eslint-disable-next-line @typescript-eslint/no-unused-vars
  return (error: unknown, _request, response, _next) => {
    // Already answered with 503, because it took too long (answer-within.ts).
    if (response.headersSent) return;
    const refusal = asRefused(error)?.refusal;
    if (refusal === undefined) {
      logger.error({ err: error }, 'Request failed with an unexpected error; answered 500');
      const description = 'Internal error; see the broker log. Try again later.';
      response.locals['error'] = description;
      response.status(500).json({ description });
      return;
    }
    sendRefusal(response, refusal);
  };
}

export function sendRefusal(response: Response, refusal: Refusal): void {
  const { status, code, emptyBody, retryAfterSeconds } = refusal;
  // It may quote the request, and ends up on a terminal.
  const description = printable(refusal.description, longestDescription);
  // For the audit trail.
  response.locals['error'] = description;
  if (status === 401) response.set('WWW-Authenticate', 'Basic realm="berth", charset="UTF-8"');
  if (retryAfterSeconds !== undefined) response.set('Retry-After', String(retryAfterSeconds));
  response
    .status(status)
    .json(emptyBody === true ? {} : { ...(code !== undefined && { error: code }), description });
}

/** The request's identity in logs and the audit trail. */
export function requestIdentity(response: Response): string | undefined {
  return response.get('X-Broker-API-Request-Identity');
}

export const notFound: RequestHandler = (request) => {
  throw refused.notFound(`${request.method} ${request.path.slice(0, 200)} does not exist.`);
};

interface HttpError {
  readonly type?: string;
  readonly status?: number;
  readonly code?: string;
}

/** Maps errors of express, its body parser and Postgres to refusals; undefined for an unexpected error. */
function asRefused(error: unknown): RefusedError | undefined {
  if (error instanceof RefusedError) return error;
  if (!(error instanceof Error)) return undefined;
  const { type, status } = error as HttpError;
  if (type === 'entity.too.large') {
    return refused.tooLarge(`The request body is larger than ${maxBodyBytes / 1024} KiB.`);
  }
  if (type === 'entity.parse.failed') {
    return refused.badRequest('The request body is not valid JSON, or not a JSON object.');
  }
  if (error instanceof URIError) {
    return refused.badRequest('The path contains an invalid percent-encoding.');
  }
  if (status !== undefined && status >= 400 && status < 500) {
    return refused.badRequest(`The request is malformed: ${error.message}.`);
  }
  // Postgres is unreachable, or the connection pool is exhausted: the platform retries.
  if (isDatabaseUnreachable(error)) {
    return refused.unavailable("The broker's database can't be reached right now. Try again in a moment.");
  }
  // Class 53: Postgres has no disk space, memory or connection left, as its log says; nothing was changed.
  if ((error as HttpError).code?.startsWith('53') === true) {
    return refused.unavailable(
      "The broker's database has no disk space, memory or connection left. Try again in a moment.",
    );
  }
  // Deadlock or serialization failure after several retries: nothing was changed.
  if (['40P01', '40001'].includes((error as HttpError).code ?? '')) {
    return refused.unavailable('Conflicting concurrent updates; retry in a moment.');
  }
  return undefined;
}

/** Messages of pg's client for a lost connection, which has no code; knex puts the statement before them. */
const lostConnection = [
  'Connection terminated',
  'Connection ended unexpectedly',
  'Client has encountered a connection error and is not queryable',
];

function isDatabaseUnreachable(error: Error): boolean {
  const { code } = error as HttpError;
  return (
    error.name === 'KnexTimeoutError' ||
    (code !== undefined &&
      (['ECONNREFUSED', 'ENOENT', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT'].includes(code) ||
        // Class 08: connection exception; 57: server shutdown or statement timeout (PostgreSQL manual, appendix A).
        code.startsWith('08') ||
        code.startsWith('57'))) ||
    lostConnection.some((text) => error.message.includes(text))
  );
}
