import type { Settings } from '../config/settings.ts';
import type { HostCheck } from '../core/ports/host-checks.ts';
import { printable } from '../lib/printable.ts';
import { printLine } from '../lib/terminal.ts';
import { askMgmt, MgmtError } from './mgmt-client.ts';

/** Longer than the broker waits for its workers. Milliseconds. */
const timeoutMs = 70_000;

/** A line about a host names files and values that its tenant may have chosen. Characters. */
const longestDetail = 1_000;

/** As JSON carries it; a 503 has a description instead. */
interface Answer {
  readonly hosts?: readonly (Omit<HostCheck, 'checkedAt' | 'failure'> & {
    readonly checkedAt?: string;
    readonly failure?: { readonly at: string; readonly reason: string };
  })[];
  readonly description?: string;
}

/** `berth verify [HOST]`: exit code 1 if a host has drift or could not be checked. */
export async function runVerify(settings: Settings, host: string | undefined): Promise<void> {
  const route = host === undefined ? '/mgmt/verify' : `/mgmt/verify/${encodeURIComponent(host)}`;
  const { hosts, description } = await askMgmt<Answer>(settings, route, 'POST', timeoutMs);
  if (hosts === undefined) throw new MgmtError(description ?? 'The broker returned no results.');
  for (const { host: id, instance, drift, quarantined, checkedAt, failure } of hosts) {
    const lastResult = checkedAt === undefined ? 'not checked' : drift.length > 0 ? 'DRIFT' : 'intact';
    const state = failure === undefined ? lastResult : `CHECK FAILED (before: ${lastResult})`;
    const owner = printable(instance ?? '(pool)');
    printLine(`${id}  ${owner}  ${state}${quarantined ? ', in quarantine' : ''}`);
    if (failure !== undefined) printLine(`    at ${failure.at}: ${printable(failure.reason, longestDetail)}`);
    for (const { part, detail } of drift) printLine(`    ${part}: ${printable(detail, longestDetail)}`);
  }
  if (hosts.length === 0) printLine('No host is running.');
  if (hosts.some(({ drift, failure }) => drift.length > 0 || failure !== undefined)) {
    process.exitCode = 1;
  }
}
