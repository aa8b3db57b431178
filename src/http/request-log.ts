import { AsyncLocalStorage } from 'node:async_hooks';
import { randomUUID } from 'node:crypto';
import type { RequestHandler } from 'express';
import type { Logger } from '../lib/logger.ts';

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

/** Logs one line per request and echoes the request's identity (docs/osb.md 3). Bodies are never logged. */
export function requestLog(logger: Logger): RequestHandler {
  return (request, response, next) => {
    const sent = request.get('X-Broker-API-Request-Identity');
    const identity = sent !== undefined && sent !== '' ? sent : randomUUID();
    response.set('X-Broker-API-Request-Identity', identity);
    const logged = identity.slice(0, maxLogged);
    const begun = performance.now();
    response.on('finish', () => {
      logger.info(
        {
          request: logged,
          method: request.method,
          path: request.path,
          status: response.statusCode,
          ms: Math.round(performance.now() - begun),
        },
        'Request answered',
      );
    });
    current.run(logged, next);
  };
}
