import type { Settings } from '../config/settings.ts';
import type { HostCheck } from '../core/ports/host-checks.ts';
import { askMgmt, MgmtError } from './mgmt-client.ts';
import { printable } from './printable.ts';

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
    process.stdout.write(`${id}  ${owner}  ${state}${quarantined ? ', in quarantine' : ''}\n`);
    if (failure !== undefined)
      process.stdout.write(`    at ${failure.at}: ${printable(failure.reason, longestDetail)}\n`);
    for (const { part, detail } of drift)
      process.stdout.write(`    ${part}: ${printable(detail, longestDetail)}\n`);
  }
  if (hosts.length === 0) process.stdout.write('No host is running.\n');
  if (hosts.some(({ drift, failure }) => drift.length > 0 || failure !== undefined)) {
    process.exitCode = 1;
  }
}
