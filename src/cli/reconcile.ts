import { setTimeout as delay } from 'node:timers/promises';
import type { Settings } from '../config/settings.ts';
import type { DifferenceKind, DifferenceOverview } from '../core/ports/host-differences.ts';
import { printable } from '../lib/printable.ts';
import { printJson, printLine, printText } from '../lib/terminal.ts';
import { askMgmt, MgmtError } from './mgmt-client.ts';
import { type Column, printTable } from './table.ts';

/** As JSON carries it. */
type DifferenceLine = Omit<DifferenceOverview, 'firstSeenAt'> & { readonly firstSeenAt: string };

/** How long `--remove` waits for the worker, in milliseconds. */
const removalTimeoutMs = 60_000;
const pollMs = 250;

const meanings: Readonly<Record<DifferenceKind, string>> = {
  leftover: 'Postgres has it as destroyed. It is removed without you.',
  ownerless:
    'Postgres never heard of it, and no tenant has used it. It is removed without you after BERTH_ORPHAN_GRACE_SECONDS, unless there are more than three, or owned or disputed ones: then --remove it.',
  owned:
    'A tenant has used it, and Postgres never heard of it: --adopt it for its instance, or --remove it with its data.',
  unreadable:
    'Its own record on the node can\'t be read: restore "host.json" from a backup, or --remove it with its data.',
  disputed:
    'Its own record names another instance or slot than Postgres: --adopt it for the former, or --remove it with its data.',
  missing:
    'Postgres has it as running, and nothing of it exists: delete its instance, or --remove the record of the host.',
};

const columns: readonly Column<DifferenceLine>[] = [
  ['HOST', ({ host }) => host],
  ['DIFFERENCE', ({ kind }) => kind],
  ['SINCE', ({ firstSeenAt }) => firstSeenAt.slice(0, 19)],
  ['SLOT', ({ slot }) => String(slot ?? '-')],
  ['INSTANCE', ({ instance }) => instance ?? '-', 36],
  ['ADOPTABLE', ({ canBeAdopted }) => (canBeAdopted ? 'yes' : 'no')],
];

export interface ReconcileOptions {
  readonly adopt?: string;
  readonly remove?: string;
  readonly dryRun?: boolean;
  readonly yes?: boolean;
  readonly json?: boolean;
}

/** `berth reconcile`: lists what differs (exit code 1 if anything does), or adopts or removes one host. */
export async function runReconcile(settings: Settings, options: ReconcileOptions): Promise<void> {
  const { adopt, remove, dryRun = false } = options;
  const wanted = [adopt !== undefined, remove !== undefined, dryRun].filter(Boolean).length;
  if (wanted > 1) throw new MgmtError('Give one of --dry-run, --adopt and --remove.');
  const differences = await list(settings);
  if (adopt !== undefined) return adoptHost(settings, find(differences, adopt));
  if (remove !== undefined) return removeHost(settings, find(differences, remove), options.yes === true);
  if (options.json === true) {
    printJson(differences);
  } else if (differences.length === 0) {
    printLine('Postgres and the hypervisor agree.');
  } else {
    printTable(columns, differences);
    for (const kind of new Set(differences.map((one) => one.kind))) {
      printText(`\n${kind}: ${meanings[kind]}`);
    }
    for (const { host, failure } of differences) {
      if (failure === undefined) continue;
      printLine('');
      printLine(`${host}: not removed: ${printable(failure, 1_000)}`);
    }
  }
  if (differences.length > 0) process.exitCode = 1;
}

const route = (host: string) => `/mgmt/reconcile/${encodeURIComponent(host)}`;

async function list(settings: Settings): Promise<readonly DifferenceLine[]> {
  return (await askMgmt<{ differences: DifferenceLine[] }>(settings, '/mgmt/reconcile')).differences;
}

/** @throws MgmtError unless exactly one host's id starts with `prefix`. */
function find(differences: readonly DifferenceLine[], prefix: string): DifferenceLine {
  const [found, ...others] = differences.filter(({ host }) => host.startsWith(prefix));
  if (found === undefined) {
    throw new MgmtError(`No difference is about a host ${prefix}: "berth reconcile" lists them.`);
  }
  if (others.length > 0) throw new MgmtError(`Several host ids start with ${prefix}: give more of the id.`);
  return found;
}

async function adoptHost(settings: Settings, { host, instance }: DifferenceLine): Promise<void> {
  await askMgmt(settings, `${route(host)}/adopt`, 'POST');
  printLine(
    `Adopted: ${host} is the host of instance ${printable(instance ?? '')} again, and is connected within seconds. Bindings that Postgres does not know are refused: have their apps bind again.`,
  );
}

async function removeHost(settings: Settings, { host, kind }: DifferenceLine, yes: boolean): Promise<void> {
  if (!yes) {
    throw new MgmtError(
      `${host} is ${kind}: ${meanings[kind]} To remove it for good, repeat the command with --yes. Nothing was changed.`,
    );
  }
  await askMgmt(settings, route(host), 'DELETE');
  const deadline = performance.now() + removalTimeoutMs;
  for (;;) {
    const now = (await list(settings)).find((one) => one.host === host);
    if (now === undefined || now.kind !== kind) break;
    if (now.failure !== undefined) {
      throw new MgmtError(`${host} was not removed: ${printable(now.failure, 1_000)}`);
    }
    if (performance.now() > deadline) {
      throw new MgmtError(
        `No worker has removed ${host} in time; the request remains. "berth doctor" shows why.`,
      );
    }
    await delay(pollMs);
  }
  printLine(`Removed: ${host}.`);
}
