import type { Settings } from '../config/settings.ts';
import type { AuditRecord } from '../core/ports/audit.ts';
import { printJson } from '../lib/terminal.ts';
import { askMgmt, MgmtError } from './mgmt-client.ts';
import { type Column, printTable } from './table.ts';

/** As JSON carries it. */
type AuditLine = Omit<AuditRecord, 'at'> & { readonly at: string };

const columns: readonly Column<AuditLine>[] = [
  ['AT', ({ at }) => at.slice(0, 19)],
  ['WHO', ({ actor, platform, identity }) => [platform ?? actor, userOf(identity)].filter(Boolean).join('/')],
  ['FROM', ({ remoteAddress }) => remoteAddress ?? '-'],
  ['WHAT', ({ action }) => action],
  ['INSTANCE', ({ instanceId }) => instanceId ?? '-'],
  ['BINDING', ({ bindingId }) => bindingId ?? '-'],
  ['STATUS', ({ status }) => String(status ?? '-')],
  ['OUTCOME', ({ outcome, error }) => (error === undefined ? outcome : `${outcome}: ${error}`)],
];

/**
 * `berth audit`: the newest rows of the audit trail, in the order of time.
 * @param options.since a time, or an age such as 90m, 12h or 7d.
 */
export async function runAudit(
  settings: Settings,
  options: { instance?: string; since?: string; limit: string; json?: boolean },
): Promise<void> {
  const query = new URLSearchParams({ limit: options.limit });
  if (options.instance !== undefined) query.set('instance', options.instance);
  if (options.since !== undefined) query.set('since', parseSince(options.since).toISOString());
  const { audit } = await askMgmt<{ audit: AuditLine[] }>(settings, `/mgmt/audit?${query.toString()}`);
  if (options.json === true) printJson(audit);
  else printTable(columns, audit);
}

const unitMs = { m: 60_000, h: 3_600_000, d: 86_400_000 };

function parseSince(text: string): Date {
  const [, count, unit] = /^(\d{1,6})([mhd])$/.exec(text) ?? [];
  const at =
    count === undefined
      ? new Date(text)
      : new Date(Date.now() - Number(count) * unitMs[unit as 'm' | 'h' | 'd']);
  if (Number.isNaN(at.getTime())) {
    throw new MgmtError(
      `--since is ${JSON.stringify(text.slice(0, 40))}: it must be a time such as 2026-11-23T12:00:00Z, or an age such as 90m, 12h or 7d.`,
    );
  }
  return at;
}

function userOf(identity: AuditRecord['identity']): string | undefined {
  const user = identity?.value['user_id'] ?? identity?.value['username'];
  return typeof user === 'string' ? user : undefined;
}
