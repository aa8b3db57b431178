import express, { type Express } from 'express';
import type { Logger } from '../../core/logger.ts';
import type { Overview } from '../../core/overview.ts';
import { basicAuth, type BasicCredentials } from '../auth.ts';
import { errorHandler, notFound } from '../errors.ts';
import { requestLog } from '../request-log.ts';
import { health } from './health.ts';
import { metricsText } from './metrics.ts';

/** The management API, for operators: another listener, with credentials of its own. */
export function createMgmtApp(parts: {
  overview: Overview;
  credentials: BasicCredentials;
  hypervisor: string;
  logger: Logger;
}): Express {
  const { overview, credentials, hypervisor, logger } = parts;
  const app = express();
  app.disable('x-powered-by');
  app.use(requestLog(logger), basicAuth(credentials));

  app.get('/mgmt/health', health(overview, hypervisor));
  app.get('/mgmt/metrics', async (_request, response) => {
    const { contentType, text } = await metricsText(await overview.counts());
    response.type(contentType).send(text);
  });
  app.get('/mgmt/hosts', async (_request, response) => {
    response.json({ hypervisor, hosts: await overview.hosts() });
  });

  app.use(notFound);
  app.use(errorHandler(logger));
  return app;
}
