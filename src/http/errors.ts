import type { ErrorRequestHandler, RequestHandler, Response } from 'express';
import { type Refusal, RefusedError, refused } from '../core/errors.ts';
import type { Logger } from '../lib/logger.ts';
import { maxBodyBytes } from './limits.ts';

/** The one translator from errors to HTTP. Every body is JSON, and says what was wrong (docs/osb.md 6). */
export function errorHandler(logger: Logger): ErrorRequestHandler {
  // Express tells an error handler by its four parameters.
  // eslint-disable-next-line @typescript-eslint/no-unused-vars
  return (error: unknown, _request, response, _next) => {
    // It has been answered already, because it took too long (answer-within.ts).
    if (response.headersSent) return;
    const refusal = asRefused(error)?.refusal;
    if (refusal === undefined) {
      logger.error({ err: error }, 'A request failed');
      const description =
        'The broker could not do this; its operator finds the reason in the log. Try again later.';
      response.locals['error'] = description;
      response.status(500).json({ description });
      return;
    }
    sendRefusal(response, refusal);
  };
}

export function sendRefusal(response: Response, refusal: Refusal): void {
  const { status, code, description, emptyBody, retryAfterSeconds } = refusal;
  // For the audit trail.
  response.locals['error'] = description;
  if (status === 401) response.set('WWW-Authenticate', 'Basic realm="berth", charset="UTF-8"');
  if (retryAfterSeconds !== undefined) response.set('Retry-After', String(retryAfterSeconds));
  response
    .status(status)
    .json(emptyBody === true ? {} : { ...(code !== undefined && { error: code }), description });
}

/** What the log calls a request by. */
export function requestIdentity(response: Response): string | undefined {
  return response.get('X-Broker-API-Request-Identity');
}

export const notFound: RequestHandler = (request) => {
  throw refused.notFound(`There is no ${request.method} ${request.path.slice(0, 200)} here.`);
};

interface HttpError {
  readonly type?: string;
  readonly status?: number;
  readonly code?: string;
}

/** Errors of express and its body parser that are the client's doing. */
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
    return refused.badRequest('The path holds a percent sign that begins no valid character.');
  }
  if (status !== undefined && status >= 400 && status < 500) {
    return refused.badRequest(`The request can't be read: ${error.message}.`);
  }
  // Postgres is away, or every connection is taken: the platform tries again later.
  if (isDatabaseAway(error)) {
    return refused.unavailable("The broker's database can't be reached right now. Try again in a moment.");
  }
  // Deadlock or serialization failure, several times in a row (store.ts): nothing was changed.
  if (['40P01', '40001'].includes((error as HttpError).code ?? '')) {
    return refused.unavailable('Too many requests changed the same at once. Try again in a moment.');
  }
  return undefined;
}

/** What pg's client says, without a code, of a connection that ended under it; knex puts the statement before it. */
const lostConnection = [
  'Connection terminated',
  'Connection ended unexpectedly',
  'Client has encountered a connection error and is not queryable',
];

function isDatabaseAway(error: Error): boolean {
  const { code } = error as HttpError;
  return (
    error.name === 'KnexTimeoutError' ||
    (code !== undefined &&
      (['ECONNREFUSED', 'ENOENT', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT'].includes(code) ||
        // Class 08: connection exception; 57: the server is being shut down, or a statement took too long
        // (PostgreSQL manual, appendix A).
        code.startsWith('08') ||
        code.startsWith('57'))) ||
    lostConnection.some((words) => error.message.includes(words))
  );
}
