import { AsyncLocalStorage } from 'node:async_hooks';
import { randomUUID } from 'node:crypto';
import type { RequestHandler } from 'express';
import type { Logger } from '../lib/logger.ts';

const current = new AsyncLocalStorage<string>();

/** Says on every line which request it is of, for all that logs while it works on one (docs/osb.md 3). */
export function withRequestIdentity(logger: Logger): Logger {
  const tell = (details: object) => {
    const request = current.getStore();
    return request === undefined ? details : { request, ...details };
  };
  return {
    debug: (details, message) => {
      logger.debug(tell(details), message);
    },
    info: (details, message) => {
      logger.info(tell(details), message);
    },
    warn: (details, message) => {
      logger.warn(tell(details), message);
    },
    error: (details, message) => {
      logger.error(tell(details), message);
    },
    child: (bindings) => withRequestIdentity(logger.child(bindings)),
  };
}

/** What log lines hold of it, as the audit trail does: the header may be as long as all headers together. */
const longestLogged = 255;

/** One line a request, with the platform's own name for it, which is echoed (docs/osb.md 3). Bodies are never logged. */
export function requestLog(logger: Logger): RequestHandler {
  return (request, response, next) => {
    const sent = request.get('X-Broker-API-Request-Identity');
    const identity = sent !== undefined && sent !== '' ? sent : randomUUID();
    response.set('X-Broker-API-Request-Identity', identity);
    const logged = identity.slice(0, longestLogged);
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
        'A request was answered',
      );
    });
    current.run(logged, next);
  };
}
