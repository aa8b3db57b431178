import express, { type Express } from 'express';
import type { AuditTrail } from '../../core/ports/audit.ts';
import type { Bindings } from '../../core/broker/bindings.ts';
import type { Instances } from '../../core/broker/instances.ts';
import type { Catalog } from '../../core/catalog/catalog.ts';
import type { Logger } from '../../lib/logger.ts';
import type { KnownCredential } from '../../core/ports/platforms.ts';
import { auditRequests } from '../audit.ts';
import { basicAuth } from '../auth.ts';
import { errorHandler, notFound } from '../errors.ts';
import { headerLimit } from '../header-limit.ts';
import { auditShare, maxBodyBytes } from '../limits.ts';
import { answerWithin } from '../answer-within.ts';
import { rateLimit } from '../rate-limit.ts';
import { requestLog } from '../request-log.ts';
import { securityHeaders } from '../security-headers.ts';
import { describeOsbRequest } from './audit.ts';
import { bind } from './bind.ts';
import { getCatalog } from './catalog.ts';
import { deprovision } from './deprovision.ts';
import { fetchBinding } from './fetch-binding.ts';
import { fetchInstance } from './fetch-instance.ts';
import { apiVersion, originatingIdentity } from './headers.ts';
import { checkUrl, requireJsonObject } from './request-checks.ts';
import { lastBindingOperation, lastOperation } from './last-operation.ts';
import { provision } from './provision.ts';
import { unbind } from './unbind.ts';
import { update } from './update.ts';

/** The Open Service Broker API. The routes below are its table of contents. */
export function createOsbApp(deps: {
  catalog: Catalog;
  /** The version of the image that new hosts are made from; undefined until a worker has reported it. */
  imageVersion: () => string | undefined;
  /** There are no VMs behind this broker; the catalog and descriptions say so. */
  simulated: boolean;
  instances: Instances;
  bindings: Bindings;
  /** The credentials that are valid now. */
  credentials: () => readonly KnownCredential[];
  /** Requests per second and platform. */
  ratePerSecond: number;
  /** In milliseconds: every request is answered within this time. */
  answerWithinMs: number;
  audit: AuditTrail;
  logger: Logger;
}): Express {
  const {
    catalog,
    imageVersion,
    simulated,
    instances,
    bindings,
    credentials,
    answerWithinMs,
    audit,
    logger,
  } = deps;
  const app = express();
  app.disable('x-powered-by');
  app.set('etag', false);
  // The audit trail matches paths with its own patterns: both must agree on the case.
  app.enable('case sensitive routing');
  // The order of refusals: docs/osb.md 0.
  app.use(
    requestLog(logger),
    answerWithin(answerWithinMs * (1 - auditShare)),
    auditRequests(audit, describeOsbRequest, logger, answerWithinMs * auditShare),
    securityHeaders,
    headerLimit,
    basicAuth(credentials),
    rateLimit(deps.ratePerSecond),
  );
  app.use(apiVersion, checkUrl, originatingIdentity, express.json({ limit: maxBodyBytes }));

  const instance = '/v2/service_instances/:instance_id';
  const binding = `${instance}/service_bindings/:binding_id`;
  app.get('/v2/catalog', getCatalog(catalog, simulated, imageVersion));
  app.put(instance, requireJsonObject, provision(instances));
  app.get(instance, fetchInstance(instances));
  app.patch(instance, requireJsonObject, update(instances));
  app.delete(instance, deprovision(instances));
  app.get(`${instance}/last_operation`, lastOperation(instances));
  app.put(binding, requireJsonObject, bind(bindings));
  app.get(binding, fetchBinding(bindings));
  app.delete(binding, unbind(bindings));
  app.get(`${binding}/last_operation`, lastBindingOperation(bindings));

  app.use(notFound);
  app.use(errorHandler(logger));
  return app;
}
