import type { Settings } from '../config/settings.ts';
import type { HostOverview } from '../core/ports/overview.ts';
import type { HostPower } from '../core/model/host.ts';
import { askMgmt, MgmtError } from './mgmt-client.ts';
import { type Column, printTable } from './table.ts';

/** As JSON carries it. */
type HostLine = Omit<HostOverview, 'createdAt'> & { readonly createdAt: string };

const columns: readonly Column<HostLine>[] = [
  ['HOST', (host) => host.host.slice(0, 8)],
  ['STATE', (host) => (host.state === 'running' && host.power !== 'running' ? host.power : host.state)],
  ['PLAN', (host) => host.plan],
  ['INSTANCE', (host) => host.instance ?? '-'],
  ['TENANT', (host) => host.tenant ?? '-'],
  ['FROM', (host) => host.startedFrom ?? '-'],
  ['INTEGRITY', (host) => host.integrity ?? 'not checked'],
  ['PORTS', (host) => host.publishedPorts],
  ['BINDINGS', (host) => String(host.liveBindings)],
  ['CREATED', (host) => host.createdAt.slice(0, 19)],
];

/** `berth hosts`: every host that has not been destroyed, a line each. */
export async function runHosts(settings: Settings, options: { json?: boolean }): Promise<void> {
  const { hypervisor, hosts } = await askMgmt<{ hypervisor: string; hosts: HostLine[] }>(
    settings,
    '/mgmt/hosts',
  );
  if (options.json === true) {
    process.stdout.write(`${JSON.stringify(hosts, undefined, 2)}\n`);
    return;
  }
  if (hypervisor === 'simulated') process.stdout.write('SIMULATED: there are no virtual machines.\n');
  printTable(columns, hosts);
}

/** `berth host pause|suspend|wake`: asks the worker for it, of the host whose id begins so. */
export async function runHostPower(settings: Settings, host: string, power: HostPower): Promise<void> {
  const meant = await findHost(settings, host);
  await askMgmt(settings, `/mgmt/hosts/${meant.host}/power/${power}`, 'PUT');
  process.stdout.write(`Asked for: ${meant.host} is to be ${power}. "berth hosts" shows when it is.\n`);
}

/** `berth host release`: asks the worker to end the quarantine of the host whose id begins so. */
export async function runHostRelease(settings: Settings, host: string): Promise<void> {
  const meant = await findHost(settings, host);
  await askMgmt(settings, `/mgmt/hosts/${meant.host}/quarantine`, 'DELETE');
  process.stdout.write(`Asked for: ${meant.host} is to leave quarantine. "berth hosts" shows when it has.\n`);
}

/** @throws MgmtError where not just one host's id begins so. */
async function findHost(settings: Settings, beginning: string): Promise<HostLine> {
  const { hosts } = await askMgmt<{ hosts: HostLine[] }>(settings, '/mgmt/hosts');
  const [meant, ...others] = hosts.filter(({ host }) => host.startsWith(beginning));
  if (meant === undefined) throw new MgmtError(`there is no host ${beginning}: "berth hosts" lists them`);
  if (others.length > 0) throw new MgmtError(`several hosts begin with ${beginning}: give more of its id`);
  return meant;
}
