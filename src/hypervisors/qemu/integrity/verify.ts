import type { Drift } from '../../../core/hypervisor/integrity.ts';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import type { Cgroups } from '../launch/cgroups.ts';
import type { Digests } from './digests.ts';
import { vmFacts } from './facts.ts';
import {
  type Facts,
  type Manifest,
  type Manifests,
  type ManifestSection,
  manifestSections,
} from './manifest.ts';
import type { HostNetworking } from '../network/network.ts';
import type { HostLayout } from '../layout.ts';
import { errorMessage } from '../../../lib/error-message.ts';
import { printable } from '../../../lib/printable.ts';

/** Differences that are described in full; of a longer list only the number is given. */
const maxDescribed = 4;
const maxLineLength = 300;
/** Consecutive checks without an answer after which the monitor counts as blocked; load alone is not the cause. */
const maxSilentChecks = 3;

/**
 * Compares a running host with its manifest.
 * @returns the drift, with the lines that differ; empty if there is none.
 * @throws HypervisorError if the VM does not run or did not answer, because that may be load and not drift.
 */
export async function verifyHost(
  layout: HostLayout,
  deps: {
    cgroups: Cgroups;
    network: HostNetworking;
    manifests: Manifests;
    digests: Digests;
    /** Consecutive checks in which a host's monitor did not answer, by host. */
    silentChecks: Map<string, number>;
  },
): Promise<readonly Drift[]> {
  const { cgroups, network, manifests, digests, silentChecks } = deps;
  let silent: string | undefined;
  const vm = await vmFacts(layout, cgroups, (cause) => {
    const times = (silentChecks.get(layout.id) ?? 0) + 1;
    silentChecks.set(layout.id, times);
    if (times < maxSilentChecks) {
      throw new HypervisorError('The monitor does not answer, so the devices could not be checked', {
        cause,
      });
    }
    silent = `the monitor does not answer, in at least ${maxSilentChecks} consecutive checks`;
    return [];
  });
  if (silent === undefined) silentChecks.delete(layout.id);
  let manifest: Manifest | undefined;
  try {
    manifest = await manifests.read(layout.manifest);
  } catch (error) {
    if (!(error instanceof HypervisorError)) throw error;
    return [{ part: 'manifest', detail: error.message }];
  }
  if (manifest?.hostId !== layout.id) {
    return [
      { part: 'manifest', detail: `${layout.manifest} is ${manifest ? 'that of another host' : 'missing'}` },
    ];
  }
  const { firewall, digests: made = [] } = manifest.facts;
  const current: Facts = {
    ...vm,
    digests: await Promise.all(made.map((line) => digestLine(line, digests))),
    // A host has no recorded rules before its network is opened.
    ...(firewall === undefined ? {} : await network.facts(layout).catch(unreadable)),
  };
  const found = compare(manifest.facts, current);
  // More useful than a list of every device as missing.
  return found.map((one) =>
    one.part === 'devices' && silent !== undefined ? { ...one, detail: silent } : one,
  );
}

/** Drift of a host's firewall rules; empty if none are recorded. */
export async function firewallDrift(
  layout: HostLayout,
  deps: { network: HostNetworking; manifests: Manifests },
): Promise<readonly Drift[]> {
  const { firewall, 'node firewall': nodeFirewall } =
    (await deps.manifests.read(layout.manifest))?.facts ?? {};
  if (firewall === undefined || nodeFirewall === undefined) return [];
  const current = await deps.network.facts(layout).catch(unreadable);
  return compare({ firewall, 'node firewall': nodeFirewall }, current);
}

/** `DIGEST FILE`, as sha256sum(1) prints it. */
export const toDigestLine = (file: string, digest: string) => `${digest} ${file}`;

async function digestLine(line: string, digests: Digests): Promise<string> {
  const file = line.slice(line.indexOf(' ') + 1);
  return toDigestLine(file, await digests.of(file));
}

/** If the rules can't be listed, the namespace or the table is missing, which is drift. */
function unreadable(error: unknown): Facts {
  const line = errorMessage(error);
  return { firewall: [line], 'node firewall': [line] };
}

/** The differences by section. Sections that are not recorded are not compared. */
export function compare(expected: Facts, found: Facts): Drift[] {
  return manifestSections.flatMap((part) => {
    const before = expected[part];
    return before === undefined ? [] : differences(part, before, found[part] ?? []);
  });
}

function differences(part: ManifestSection, before: readonly string[], after: readonly string[]): Drift[] {
  const missing = without(before, after);
  const added = without(after, before);
  if (missing.length + added.length > 0) {
    const lines = [...missing.map((line) => `missing: ${line}`), ...added.map((line) => `new: ${line}`)];
    const more = lines.length > maxDescribed ? `; and ${lines.length - maxDescribed} more` : '';
    const named = lines.slice(0, maxDescribed).map((line) => printable(line, maxLineLength));
    return [{ part, detail: `${named.join('; ')}${more}` }];
  }
  // Order matters, because the first matching rule decides.
  const moved = before.find((line, index) => line !== after[index]);
  return moved === undefined ? [] : [{ part, detail: `different order: ${printable(moved, maxLineLength)}` }];
}

/** The lines of one list that the other lacks, counting repetitions. */
function without(lines: readonly string[], others: readonly string[]): string[] {
  const left = new Map<string, number>();
  for (const line of others) left.set(line, (left.get(line) ?? 0) + 1);
  return lines.filter((line) => {
    const count = left.get(line) ?? 0;
    if (count > 0) left.set(line, count - 1);
    return count === 0;
  });
}
