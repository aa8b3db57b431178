import type { Settings } from '../config/settings.ts';
import type { HostCheck } from '../core/ports/host-checks.ts';
import { askMgmt, MgmtError } from './mgmt-client.ts';

/** Longer than the broker waits for its workers. */
const timeoutMs = 70_000;

/** As JSON carries it; a 503 has a description in its place. */
interface Answer {
  readonly hosts?: readonly (Omit<HostCheck, 'checkedAt' | 'failure'> & {
    readonly checkedAt?: string;
    readonly failure?: { readonly at: string; readonly reason: string };
  })[];
  readonly description?: string;
}

/** `berth verify [HOST]`: exit code 1 where a host is not as it was made, or could not be checked. */
export async function runVerify(settings: Settings, host: string | undefined): Promise<void> {
  const route = host === undefined ? '/mgmt/verify' : `/mgmt/verify/${encodeURIComponent(host)}`;
  const { hosts, description } = await askMgmt<Answer>(settings, route, 'POST', timeoutMs);
  if (hosts === undefined) throw new MgmtError(description ?? 'The broker did not tell what it found.');
  for (const { host: id, instance, drift, quarantined, checkedAt, failure } of hosts) {
    const known = checkedAt === undefined ? 'not checked' : drift.length > 0 ? 'ALTERED' : 'as made';
    const state = failure === undefined ? known : `CHECK FAILED (before: ${known})`;
    const of = instance ?? '(pool)';
    process.stdout.write(`${id}  ${of}  ${state}${quarantined ? ', in quarantine' : ''}\n`);
    if (failure !== undefined) process.stdout.write(`    at ${failure.at}: ${failure.reason}\n`);
    for (const { part, detail } of drift) process.stdout.write(`    ${part}: ${detail}\n`);
  }
  if (hosts.length === 0) process.stdout.write('No host runs.\n');
  if (hosts.some(({ drift, failure }) => drift.length > 0 || failure !== undefined)) {
    process.exitCode = 1;
  }
}
