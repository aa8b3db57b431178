import express, { type Express } from 'express';
import { diskRoom } from '../../core/disk-admission.ts';
import type { AdmissionRules } from '../../core/model/node-memory.ts';
import type { AuditTrail } from '../../core/ports/audit.ts';
import type { PoolPlan } from '../../core/pool-state.ts';
import type { HostDifferences } from '../../core/ports/host-differences.ts';
import type { HostChecks } from '../../core/ports/host-checks.ts';
import type { Logger } from '../../lib/logger.ts';
import type { CertificateAuthorityRotation } from '../../core/ports/certificate-authorities.ts';
import type { KeyRotation } from '../../core/ports/master-keys.ts';
import type { Overview } from '../../core/ports/overview.ts';
import { credentialDigest, type Platforms } from '../../core/ports/platforms.ts';
import type { Records } from '../../core/ports/store.ts';
import { auditRequests } from '../audit.ts';
import { basicAuth, type BasicCredentials } from '../auth.ts';
import { errorHandler, notFound } from '../errors.ts';
import { headerLimit } from '../header-limit.ts';
import { longestAuditMs } from '../limits.ts';
import { rateLimit } from '../rate-limit.ts';
import { requestLog } from '../request-log.ts';
import { securityHeaders } from '../security-headers.ts';
import { describeMgmtRequest, getAudit } from './audit.ts';
import { health } from './health.ts';
import { metricsText } from './metrics.ts';
import { rulesNotices } from './node-rules.ts';
import { putPower } from './power.ts';
import { adoptHost, getDifferences, removeHost } from './reconcile.ts';
import { deleteQuarantine } from './quarantine.ts';
import { verify } from './verify.ts';

/** The management API for operators: a separate listener with separate credentials. */
export function createMgmtApp(deps: {
  overview: Overview;
  pool: () => Promise<readonly PoolPlan[]>;
  records: Pick<Records, 'requestPower' | 'nodeDisk' | 'usage'>;
  platforms: Platforms;
  checks: HostChecks;
  differences: HostDifferences;
  diskAdmission: AdmissionRules;
  credentials: BasicCredentials;
  hypervisor: string;
  /** Requests per second, of all operators together. */
  ratePerSecond: number;
  audit: AuditTrail;
  keys: KeyRotation;
  certificateAuthorities: CertificateAuthorityRotation;
  logger: Logger;
}): Express {
  const {
    overview,
    pool,
    records,
    platforms,
    checks,
    differences,
    diskAdmission,
    credentials,
    hypervisor,
    ratePerSecond,
    audit,
    keys,
    certificateAuthorities,
    logger,
  } = deps;
  const known = [
    {
      digest: credentialDigest(credentials.username, credentials.password),
      platform: { id: 'operator', name: 'operator' },
    },
  ];
  const app = express();
  app.disable('x-powered-by');
  // The audit trail matches paths with its own patterns: both must agree on the case.
  app.enable('case sensitive routing');
  app.use(
    requestLog(logger),
    auditRequests(audit, describeMgmtRequest, logger, longestAuditMs),
    securityHeaders,
    headerLimit,
    basicAuth(() => known),
    rateLimit(ratePerSecond),
  );

  const disk = () => diskRoom(records, diskAdmission);
  app.get('/mgmt/health', health({ overview, hypervisor, disk }));
  app.get('/mgmt/metrics', async (_request, response) => {
    const { contentType, text } = await metricsText(
      await overview.counts(),
      await overview.nodeRules(),
      await pool(),
    );
    response.type(contentType).send(text);
  });
  app.get('/mgmt/hosts', async (_request, response) => {
    const [hosts, rules, ofPool] = await Promise.all([overview.hosts(), overview.nodeRules(), pool()]);
    response.json({ hypervisor, hosts, pool: ofPool, notices: rulesNotices(rules) });
  });
  app.put('/mgmt/hosts/:host/power/:power', putPower(records));
  app.delete('/mgmt/hosts/:host/quarantine', deleteQuarantine(checks));
  app.get('/mgmt/reconcile', getDifferences(differences));
  app.delete('/mgmt/reconcile/:host', removeHost(differences));
  app.post('/mgmt/reconcile/:host/adopt', adoptHost(differences));
  app.get('/mgmt/audit', getAudit(audit));

  app.post(['/mgmt/verify', '/mgmt/verify/:host'], verify(checks));
  app.get('/mgmt/keys', async (_request, response) => {
    response.json({ keys: await keys.list() });
  });
  app.post('/mgmt/keys/rotate', async (_request, response) => {
    response.status(202).json({ keys: await keys.rotate() });
  });

  app.get('/mgmt/certificate-authorities', async (_request, response) => {
    response.json({ certificateAuthorities: await certificateAuthorities.list() });
  });
  for (const name of ['client', 'server'] as const) {
    app.post(`/mgmt/certificate-authorities/${name}/rotate`, async (_request, response) => {
      response.json({ certificateAuthorities: await certificateAuthorities.rotate(name) });
    });
  }

  app.get('/mgmt/platforms', async (_request, response) => {
    response.json({ platforms: await platforms.list() });
  });
  app.put('/mgmt/platforms/:name', async (request, response) => {
    response.status(201).json(await platforms.create(request.params.name));
  });
  app.post('/mgmt/platforms/:name/passwords', async (request, response) => {
    response.status(201).json(await platforms.addPassword(request.params.name));
  });
  app.delete('/mgmt/platforms/:name/passwords/oldest', async (request, response) => {
    await platforms.retirePassword(request.params.name);
    response.json({});
  });

  app.use(notFound);
  app.use(errorHandler(logger));
  return app;
}
