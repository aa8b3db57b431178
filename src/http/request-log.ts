import { AsyncLocalStorage } from 'node:async_hooks';
import { randomUUID } from 'node:crypto';
import type { RequestHandler } from 'express';
import type { Logger } from '../lib/logger.ts';
import { isAuthenticated } from './auth.ts';
import { createRefusalLimit } from './refusal-limit.ts';

const current = new AsyncLocalStorage<string>();

/** Adds the request's identity to every line that is logged while the request is handled (docs/osb.md 3). */
export function withRequestIdentity(logger: Logger): Logger {
  const withRequest = (details: object) => {
    const request = current.getStore();
    return request === undefined ? details : { request, ...details };
  };
  return {
    debug: (details, message) => {
      logger.debug(withRequest(details), message);
    },
    info: (details, message) => {
      logger.info(withRequest(details), message);
    },
    warn: (details, message) => {
      logger.warn(withRequest(details), message);
    },
    error: (details, message) => {
      logger.error(withRequest(details), message);
    },
    child: (bindings) => withRequestIdentity(logger.child(bindings)),
  };
}

/** Characters that are logged, as in the audit trail: the header may be as long as all headers together. */
const maxLogged = 255;

/**
 * Logs one line per request and echoes the request's identity (docs/osb.md 3). Bodies are never logged. Of
 * unauthenticated requests only a sample is logged; the next line has the number that was left out (`notLogged`).
 * @param now milliseconds of a monotonic clock.
 */
export function requestLog(logger: Logger, now = () => performance.now()): RequestHandler {
  const limit = createRefusalLimit(now);
  return (request, response, next) => {
    const sent = request.get('X-Broker-API-Request-Identity');
    const identity = sent !== undefined && sent !== '' ? sent : randomUUID();
    response.set('X-Broker-API-Request-Identity', identity);
    const logged = identity.slice(0, maxLogged);
    const begun = performance.now();
    response.on('finish', () => {
      if (!isAuthenticated(response) && !limit.admits()) return;
      const notLogged = limit.takeSkipped();
      logger.info(
        {
          request: logged,
          method: request.method,
          path: request.path.slice(0, maxLogged),
          status: response.statusCode,
          ms: Math.round(performance.now() - begun),
          ...(notLogged > 0 && { notLogged }),
        },
        'Request answered',
      );
    });
    current.run(logged, next);
  };
}
