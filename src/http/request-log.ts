import { randomUUID } from 'node:crypto';
import type { RequestHandler } from 'express';
import type { Logger } from '../core/logger.ts';
import { requestIdentity } from './errors.ts';

/** One line a request, with the platform's own name for it, which is echoed (osb-notes 3). Bodies are never logged. */
export function requestLog(logger: Logger): RequestHandler {
  return (request, response, next) => {
    const sent = request.get('X-Broker-API-Request-Identity');
    const identity = sent !== undefined && /^[\x21-\x7e]{1,255}$/.test(sent) ? sent : randomUUID();
    response.set('X-Broker-API-Request-Identity', identity);
    const begun = performance.now();
    response.on('finish', () => {
      logger.info(
        {
          request: requestIdentity(response),
          method: request.method,
          path: request.path,
          status: response.statusCode,
          ms: Math.round(performance.now() - begun),
        },
        'A request was answered',
      );
    });
    next();
  };
}
