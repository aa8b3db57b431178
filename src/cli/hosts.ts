import type { Settings } from '../config/settings.ts';
import type { HostPower } from '../core/model/host.ts';
import type { HostOverview } from '../core/ports/overview.ts';
import type { PoolPlan } from '../core/pool-state.ts';
import { printJson, printLine, printText } from '../lib/terminal.ts';
import { askMgmt, MgmtError } from './mgmt-client.ts';
import { printable } from '../lib/printable.ts';
import { type Column, printTable } from './table.ts';

/** As JSON carries it. */
type HostLine = Omit<HostOverview, 'createdAt' | 'expiresAt' | 'memoryLostAt' | 'pausedRestart'> & {
  readonly pausedRestart?: { readonly restarts: number; readonly at: string };
  readonly createdAt: string;
  readonly memoryLostAt?: string;
  readonly expiresAt?: string;
};

/** Widest name and plan in the default table, in characters: its six columns always fit a terminal of 80. */
const nameWidth = 16;
const planWidth = 10;
const shortIdLength = 8;
/** In characters. */
const longestNotice = 2_000;

function stateOf({ state, power, halted, pausedRestart }: HostLine): string {
  if (pausedRestart !== undefined) return 'ended';
  if (state !== 'running') return state;
  return power === 'running' ? (halted ?? state) : power;
}

const columns: readonly Column<HostLine>[] = [
  ['HOST', ({ host }) => host.slice(0, shortIdLength)],
  ['STATE', stateOf],
  ['PLAN', ({ plan }) => plan, planWidth],
  ['TENANT', ({ tenantName, tenant }) => tenantName ?? shortTenant(tenant), nameWidth],
  [
    'INSTANCE',
    ({ instanceName, instance }) => instanceName ?? instance?.slice(0, shortIdLength) ?? '-',
    nameWidth,
  ],
  ['INTEGRITY', ({ integrity }) => integrity ?? 'not checked'],
];

const wideColumns: readonly Column<HostLine>[] = [
  ['HOST', ({ host }) => host],
  ['STATE', stateOf],
  ['PLAN', ({ plan }) => plan],
  ['TENANT', ({ tenantName }) => tenantName ?? '-'],
  ['TENANT ID', ({ tenant }) => tenantParts(tenant).join(':') || '-'],
  ['INSTANCE', ({ instanceName }) => instanceName ?? '-'],
  ['INSTANCE ID', ({ instance }) => instance ?? '-'],
  ['INTEGRITY', ({ integrity }) => integrity ?? 'not checked'],
  ['BINDINGS', ({ liveBindings }) => String(liveBindings)],
  ['FROM', ({ startedFrom }) => startedFrom ?? '-'],
  ['IMAGE', ({ imageVersion }) => imageVersion ?? '-'],
  ['ENGINE', ({ engine }) => engine ?? '-'],
  ['PORTS', ({ publishedPorts }) => publishedPorts],
  [
    'RESTARTS',
    ({ pausedRestart }) =>
      pausedRestart === undefined ? '-' : `${pausedRestart.restarts}, next ${pausedRestart.at.slice(11, 19)}`,
  ],
  ['CREATED', ({ createdAt }) => createdAt.slice(0, 19)],
  ['EXPIRES', ({ expiresAt }) => expiresAt?.slice(0, 19) ?? '-'],
  ['MEMORY LOST', ({ memoryLostAt }) => memoryLostAt?.slice(0, 19) ?? '-'],
  ['PROBLEM', ({ problem }) => problem ?? '-'],
];

/** `berth hosts`: every host that has not been destroyed, a line each. */
export async function runHosts(
  settings: Settings,
  options: { json?: boolean; wide?: boolean },
): Promise<void> {
  const { hypervisor, hosts, pool, notices } = await askMgmt<{
    hypervisor: string;
    hosts: HostLine[];
    pool: PoolPlan[];
    notices: string[];
  }>(settings, '/mgmt/hosts');
  if (options.json === true) {
    printJson(hosts);
    return;
  }
  if (hypervisor === 'simulated') printLine('SIMULATED: there are no VMs.');
  printTable(options.wide === true ? wideColumns : columns, hosts);
  if (pool.length > 0) {
    const sizes = pool.map(({ plan, parked, wanted }) => `${parked} of ${wanted} ${plan}`);
    printText(`\nHosts parked in the pool: ${sizes.join(', ')}.`);
  }
  for (const notice of notices) printText(`\n${printable(notice, longestNotice)}`);
  const { differences } = await askMgmt<{ differences: unknown[] }>(settings, '/mgmt/reconcile');
  if (differences.length > 0) {
    printText(`\n${differences.length} hosts differ from their records: see "berth reconcile".`);
  }
}

/** `berth host pause|suspend|wake`: requests the power state for the host whose id starts with `host`. */
export async function runHostPower(settings: Settings, host: string, power: HostPower): Promise<void> {
  const { host: id } = await findHost(settings, host);
  await askMgmt(settings, `/mgmt/hosts/${id}/power/${power}`, 'PUT');
  printLine(`Requested: host ${id} is to be ${power}. "berth hosts" shows its state.`);
}

/** `berth host release`: requests the end of the quarantine of the host whose id starts with `host`. */
export async function runHostRelease(settings: Settings, host: string): Promise<void> {
  const { host: id } = await findHost(settings, host);
  await askMgmt(settings, `/mgmt/hosts/${id}/quarantine`, 'DELETE');
  printLine(`Requested: host ${id} is to leave quarantine. "berth hosts" shows its state.`);
}

/** @throws MgmtError unless exactly one host's id starts with `prefix`. */
async function findHost(settings: Settings, prefix: string): Promise<HostLine> {
  const { hosts } = await askMgmt<{ hosts: HostLine[] }>(settings, '/mgmt/hosts');
  const [found, ...others] = hosts.filter(({ host }) => host.startsWith(prefix));
  if (found === undefined) throw new MgmtError(`There is no host ${prefix}: "berth hosts" lists them.`);
  if (others.length > 0) throw new MgmtError(`Several host ids start with ${prefix}: give more of the id.`);
  return found;
}

/** A tenant key such as `["org","6f0c…"]` as its parts; none for a parked host. */
function tenantParts(tenant: string | undefined): readonly string[] {
  return tenant === undefined ? [] : (JSON.parse(tenant) as string[]);
}

/** The ids of a tenant without a recorded name, such as `6f0c1d2e` for an org or `6f0c1d2e/90ab12cd` for a space. */
function shortTenant(tenant: string | undefined): string {
  const [, ...ids] = tenantParts(tenant);
  return ids.map((id) => id.slice(0, shortIdLength)).join('/') || '-';
}
