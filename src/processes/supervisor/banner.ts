import { credentialsPath } from '../../config/secrets.ts';
import type { Settings } from '../../config/settings.ts';

/** What `npm start` prints once all processes are ready. */
export function banner(settings: Settings): string {
  const scheme = settings.tlsCertificateFile === undefined ? 'http' : 'https';
  const osbUrl = `${scheme}://${settings.externalHost}:${settings.port}`;
  const simulated =
    settings.hypervisor === 'simulated'
      ? '\n  THIS IS SIMULATED: no virtual machine is created, and nothing is isolated.\n'
      : '';
  return `
Berth is ready.
${simulated}
  OSB API        ${osbUrl}
  Gateway        tcp://${settings.externalHost}:${settings.gatewayPort}
  Management     http://${settings.mgmtAddress}:${settings.mgmtPort}/mgmt/health
  Credentials    ${credentialsPath(settings)}

In another terminal:
  npm run demo                 plays a platform and two tenants
  npm run berth -- hosts       lists the hosts
Cloud Foundry:
  cf create-service-broker berth USERNAME PASSWORD ${osbUrl}

Ctrl-C stops Berth's processes; hosts keep running.

`;
}
